"""Objects that captions name, against lists of what is and is not there: what AMBER and measures like it count.

`lists` reads the lists, `nouns` finds the nouns, `nearness` says how alike two words are, `layout` makes arrays of
all that, `exact` and `corrected` judge every noun, `questions` counts answers to yes/no questions.
"""
