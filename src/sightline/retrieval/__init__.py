"""Reports of similar studies: which there are, how they are searched, and how many of them are shown.

`report` gathers them, `collapse` finds those that say the same, `store` keeps and searches them with their
`vectors`, `embed` makes the embeddings, `domain` picks the index of an image, `choose` and `calibrate` say how many
are shown, `found` is the answer for one sample.
"""
