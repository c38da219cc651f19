"""How doubt, denial, sides, degrees, changes and earlier studies are written in chest reports: data, no code.

All patterns are regular expressions over lower-case text with single blanks.
"""

from __future__ import annotations

from collections.abc import Mapping

NOT_DEVICES = (
    r"lead(?:s|ing)? to",
    r"(?:fissure|midline|pleural|kerley|mid(?:clavicular|axillary)|rib|stripe|septal|fracture|suture|"
    r"staple|b) lines?",
    r"lines? of demarcation",
    r"line \(s\)",
    r"in line with",
    r"(?:vertebral|end|growth|end ?-) ?plates?",
    r"(?:apical|previous|recent|prior|interval) extubation",
)
"""Phrases that hold a device's word and name none."""

HOLLOW = (
    r"(?:no|not|without|not any)(?: (?:any|significant|interval|appreciable|definite|other|real|"
    r"substantial|major|great|"
    r"acute|new))* (?:change|changes|increase|decrease|difference|improvement|worsening|progression)(?: "
    r"(?:in|of|to|"
    r"from|since))?",
    r"not only|no doubt|not significantly changed|not (?:\w+ )?changed|no longer (?:enlarged)",
    r"nonspecific|non-specific",
    r"(?:obscur|limit|preclud)\w* (?:\w+ ){0,3}(?:evaluation|assessment|detail|visuali[sz]ation)",
    r"(?:mass effect)",
    r"mass(?:ive|es) (?=hiatal)",
    r"(?:history|hx|h/o|indication)(?: of|:)? [^.;,]*",
    r"(?:evaluate|evaluation|assess|rule out|r/o|query|concern for|clinical (?:suspicion|concern))(?: for| "
    r"of)? [^.;]*\?",
    r"could (?:obscure|hide|mask|conceal|simulate) [^.;]*",
    r"(?:if|when) (?:there is )?(?:clinical|concern|indicated|symptom)[^.;]*",
)
"""Words that neither deny nor affirm although they look so; they are blanked before anything is read."""

POSSIBLE = (
    r"(?:cannot|can not|can't|could not|couldn't|unable to|difficult to|hard to|not|does not|do not)(?: "
    r"\w+ly)? "
    r"(?:exclude|rule out)(?: the possibility of)?"
)
"""A denial of a denial; it is read as "possible"."""
DENIES_BEFORE = (
    r"no(?! doubt)|not|without|neither|nor|never|none|negative for|free of|clear of|free from|absence of|"
    r"absent|"
    r"lack of|lacks?|rather than|resolution of|resolved|removal of|removed|with no|ruled out|"
    r"fails? to (?:show|demonstrate|reveal)|cleared|clearing of|unlikely to (?:be|represent)"
)
DENIES_AFTER = (
    r"(?:is|are|was|were|has been|have been|has|have|having|being)?(?: \w+ly)? ?"
    r"(?:absent|excluded|ruled out|resolved|removed|cleared|gone|none|withdrawn|not (?:seen|present|visible|"
    r"visuali[sz]ed|identified|detected|evident|noted|found|appreciated|demonstrated|observed|shown|"
    r"apparent)(?! on (?:the )?(?:lateral|prior|previous|frontal))|"
    r"not (?:\w+ ){1,3}(?:seen|present|visible|visuali[sz]ed|identified|detected|evident|noted|found|"
    r"appreciated|"
    r"demonstrated|in place)|no longer (?:\w+ )?(?:seen|present|visible|visuali[sz]ed|identified|evident|"
    r"noted|"
    r"demonstrated|appreciated)|never (?:\w+ )?seen|nowhere (?:seen|to be seen)|cannot be (?:seen|"
    r"identified|found)|"
    r"(?:is |are )?unlikely|within (?:the )?(?:normal limits|limits of normal))|: ?(?:no|none|absent|"
    r"negative)\b"
)
DOUBTS_BEFORE = (
    r"possibl[ey]|possibility of|probabl[ey]|questionable|question(?: of)?|suspect(?:ed)?|suspicious for|"
    r"suspicion (?:of|for)|"
    r"may|might|maybe|perhaps|could|equivocal|uncertain|potential(?:ly)?|concerning for|worrisome for|"
    r"versus|vs|or|"
    r"either|differential(?: diagnosis)?|consider|favor(?:ed|s)?|raises?|presumed|presumably|suggest(?:s|"
    r"ing|ive)?(?: of)?"
)
DOUBTS_AFTER = (
    r"(?:(?:is|are|was|were|remains?) )?(?:possible|questionable|suspected|equivocal|uncertain|probable|"
    r"not (?:be )?(?:entirely |completely |definitely |fully )?(?:excluded|ruled out)|"
    r"(?:cannot|can not|can't|could not) (?:\w+ )?be (?:\w+ )?(?:excluded|ruled out)|"
    r"(?:is |are )?(?:a |in the )?(?:possibility|consideration|differential|concern)|versus|vs|\?)"
)
SOFT = r"or|favor(?:ed|s)?|presumed|presumably|suggest(?:s|ing|ive)?(?: of)?|either|probabl[ey]"
"""Hedges that lean to yes: a finding that only they touch is affirmed."""
ENDS_SCOPE = (
    r"but|however|although|though|except|apart from|aside from|other than|besides|yet|while|whereas|"
    r"following|"
    r"status post|s/p|after|due to|because of|secondary to|with (?!(?:no|out|or without)\b)|in (?:this|"
    r"the) setting of|"
    r"persists?|remains?|there is|there are"
)
"""Where a word of denial before it stops to reach."""

SIDES: Mapping[str, tuple[str, ...]] = {
    "left": (r"left(?:-?sided)?", r"lingular?"),
    "right": (r"right(?:-?sided)?", r"(?:right )?middle lobe"),
    "both": (
        r"bilateral(?:ly)?", r"both", r"bibasilar", r"bibasal", r"biapical", r"bi-?basilar", r"bilobar",
        r"(?:left|right) (?:greater|worse|more|larger|less) than (?:the )?(?:left|right)",
        r"(?:lung )?bases", r"apices", r"each side", r"either side",
    ),
}  # fmt: skip

DEGREES: tuple[tuple[int, str], ...] = (
    (1, r"small|tiny|trace|minimal(?:ly)?|mild(?:ly)?|slight(?:ly)?|minor|minute|subtle|low-?grade|little"),
    (2, r"moderate(?:ly)?(?:[- ]sized?)?|medium(?:[- ]sized?)?|intermediate"),
    (
        3,
        r"large|severe(?:ly)?|massive(?:ly)?|marked(?:ly)?|extensive(?:ly)?|huge|gross|substantial(?:ly)?|"
        r"big|considerable",
    ),
)

PRIOR = (
    r"(?:prior|previous|earlier|preceding|old|older|last|comparison|remote) (?:\w+ ){0,3}?"
    r"(?:exam(?:ination)?s?|stud(?:y|ies)|films?|radiographs?|images?|imaging|x-?rays?|ct|scans?|"
    r"comparisons?|chest|"
    r"reports?)",
    r"(?:compar(?:ed|ison|ing)|relative|in relation) (?:is made )?(?:to|with) [\w ]{0,30}",
    r"(?:from|since|to|than|on|as|in) (?:the |a )?(?:prior|previous|earlier|last|comparison|preceding)",
    r"\bpreviously\b|again (?:\w+ )?(?:seen|noted|identified|demonstrated|present)|re-?demonstrat\w+",
    r"interval (?:\w+ ){0,2}(?:change|increase|decrease|development|improvement|worsening|resolution|"
    r"removal|placement|"
    r"appearance|growth|progression|enlargement|clearing)",
    r"in the interval|since (?:the )?(?:prior|last|previous|\d)",
    r"unchanged|no (?:significant |interval )*change|(?:has|have) (?:not )?(?:\w+ )?(?:changed|increased|"
    r"decreased|"
    r"improved|worsened|resolved|progressed|cleared|enlarged|developed)",
    r"(?:increas|decreas|improv|worsen|progress|resolv|enlarg)(?:ed|ing|es) (?:since|from|compared|in the "
    r"interval)",
    r"\bno longer\b|newly|\bnew (?!york)|stable|persist(?:s|ent|ing)|(?:is|are|has) (?:now )?(?:resolved|"
    r"worse|better|"
    r"improved|larger than|smaller than)",
)
NOT_PRIOR = (
    r"no (?:prior|previous|comparison)s?(?: \w+){0,4}(?: available)?|(?:without|none) (?:prior|comparison)s?|"
    r"no (?:acute |focal |suspicious )?new|comparison:? (?:none|not available)|hemodynamically stable"
)
CHANGES: Mapping[str, str] = {
    "worse": r"worse(?:n(?:ed|ing))?|increas(?:ed|ing|e)(?: in size)? (?:since|from|compared|in the "
    r"interval)|"
    r"(?:has|have) increased|interval (?:\w+ )?(?:increase|worsening|progression|enlargement|growth)|"
    r"progress(?:ed|ion)|"
    r"larger(?: than)?|(?:has|have) (?:enlarged|grown)",
    "better": r"improv(?:ed|ing|ement)|better|decreas(?:ed|ing|e)(?: in size)? (?:since|from|compared|in "
    r"the interval)|"
    r"(?:has|have) (?:decreased|shrunk|diminished)|interval (?:\w+ )?(?:decrease|improvement)|smaller(?: "
    r"than)?|"
    r"partial(?:ly)? (?:clear|resol)\w+",
    "same": r"unchanged|stable|no (?:significant |interval |appreciable )*change|not (?:\w+ )?changed|"
    r"(?:similar|identical) to (?:the )?(?:prior|previous)|persist(?:s|ent|ing)",
    "new": r"\bnew(?:ly)?\b|interval (?:\w+ )?(?:development|appearance)|(?:has|have) (?:developed|appeared)",
    "gone": r"resolved|resolution|no longer (?:\w+ )?(?:seen|present|visible|identified|evident)|(?:has|"
    r"have) cleared",
}

KEPT_SECTIONS = (
    "findings",
    "impression",
    "conclusion",
    "conclusions",
    "opinion",
    "summary",
    "interpretation",
    "report",
)
OTHER_SECTIONS = (
    "indication", "indications", "clinical indication", "history", "clinical history", "clinical information",
    "reason for exam", "reason for examination", "reason", "technique", "examination", "exam", "procedure",
    "comparison", "comparisons", "comment", "recommendation", "recommendations", "view", "views", "wet read",
    "notification", "final report", "addendum",
)  # fmt: skip
COMPARISON = ("comparison", "comparisons")
