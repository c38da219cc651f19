"""A trained model as files that other programs open: a hub's folder, rounded weights, ONNX graphs.

`written.export` makes any kind; `opened.load` opens what it made, as a `Bundle` again.
"""
