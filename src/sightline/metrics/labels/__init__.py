"""A rule labeller of chest reports: 14 findings, denied, in doubt or affirmed; sides, degrees, devices, priors.

`rules` and `wording` are data: how things are written, and what is said of them. `scope` decides what a negation or a
hedge reaches. `sections` leaves out what is not an observation. `reading` puts them together: `read(report)`. `errors`
compares two readings.
"""
