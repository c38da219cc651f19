"""How findings and devices are written in chest reports: data, no code. `wording` has what is said of them.

All patterns are regular expressions over lower-case text with single blanks. The 14 findings are those of the
CheXpert labeller (Irvin et al. 2019, arXiv:1901.07031); what belongs to each follows its published definitions, so
that congestion counts as edema, infection as pneumonia, scars in the lung as opacity. The patterns are our own,
extended on half of the Indiana reports (docs/metrics/findings.md has the figures on both halves).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FINDINGS = (
    "no_finding", "enlarged_cardiomediastinum", "cardiomegaly", "lung_lesion", "lung_opacity", "edema", "consolidation",
    "pneumonia", "atelectasis", "pneumothorax", "pleural_effusion", "pleural_other", "fracture", "support_devices",
)  # fmt: skip
SIDED = (
    "lung_lesion", "lung_opacity", "consolidation", "pneumonia", "atelectasis", "pneumothorax", "pleural_effusion",
    "pleural_other", "fracture",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How one finding is written.

    Args:
        says: patterns that name it.
        denies: patterns that deny it without a word of negation ("heart size is normal").
        doubts: patterns that leave it open ("borderline heart size").
    """

    says: tuple[str, ...]
    denies: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


_BE = r"(?:is|are|was|were|remains?|remained|appears?|looks?|seems?|has been|have been)"
_HOW = (
    r"(?:(?:again|still|now|also|only|just|very|quite|grossly|overall|otherwise|within|stable|stably|"
    r"unchanged|"
    r"mildly|moderately|severely|markedly|slightly|minimally|massively|somewhat|borderline|significantly|"
    r"substantially|mild|moderate|severe|to be|in size|in caliber|and) )*"
)
_ORGAN = (
    r"(?:heart|cardiac|cardio ?-?mediastinal|cardiopericardial|cardio ?-?thymic)"
    r"(?: (?:and|or|/) (?:(?:the |upper |superior )*(?:mediastin\w+|pericardial|hilar|aort\w+|great "
    r"vessels?|pulmonary \w+)))?"
    r"(?: (?:size|silhouettes?|shadows?|contours?|outlines?|borders?|diameters?|structures))*"
    r"(?: and (?:the )?(?:pulmonary )?(?:vascularity|vasculature|vessels|mediastinum|mediastinal \w+|"
    r"configuration))?"
)
_MIDDLE = (
    r"(?:(?:superior |upper )?mediastin(?:um|al)|cardio ?-?mediastin(?:um|al)|cardiac and mediastinal|"
    r"heart and mediastin(?:um|al)|hila?r? and mediastin(?:um|al))"
    r"(?: (?:silhouettes?|contours?|width|outlines?|borders?|structures|configuration))*"
)
_LARGE = r"(?:enlarged|large|big|increased|prominent|globular|dilated|bulky)"
_NORMAL = (
    r"(?:normal|unremarkable|within (?:the )?normal|within limits|not enlarged|not (?:significantly "
    r")?(?:widened|large)|"
    r"no enlargement|of normal|clear|intact|preserved)"
)
_LUNGS = (
    r"(?:(?:both |bilateral |the )*(?:lungs?|lung fields?|lung parenchyma|lung zones|pulmonary parenchyma))"
)
_AIR = r"air[ -]?spaces?"

_CLEAR = (
    rf"{_LUNGS} (?:{_BE} )?{_HOW}(?:(?:both|well[- ]\w+ and|essentially|bilaterally|expanded and|inflated "
    rf"and) )*"
    r"(?:clear|unremarkable|normal)\b(?! of)",
    r"clear (?:bilateral )?lungs?(?: fields?)?",
    r"normal lungs",
)

BARE = (
    rf"(?:the )?{_ORGAN}",
    rf"(?:the )?{_MIDDLE}",
    rf"(?:the )?{_LUNGS}",
    r"(?:the )?trachea",
    r"(?:the )?aorta",
)
"""Subjects that say nothing by themselves; their predicate comes after "and"."""

RULES: Mapping[str, Rule] = {
    "enlarged_cardiomediastinum": Rule(
        says=(
            rf"{_MIDDLE} (?:{_BE} )?{_HOW}(?:widened|wide|{_LARGE})",
            r"(?:widen(?:ed|ing)|enlarge(?:d|ment)|prominen(?:t|ce)|fullness)(?: of)? (?:the )?"
            r"(?:superior |upper |right |left |anterior )*(?:cardio ?-?)?mediastin(?:um|al)(?: \w+)?",
            r"mediastinal (?:widening|enlargement|prominence|fullness|mass|lymphadenopathy|adenopathy)",
            r"(?:right |left )?paratracheal (?:prominence|fullness|widening|thickening|mass|stripe "
            r"thickening)",
        ),
        denies=(
            rf"{_MIDDLE}(?: and [\w ]{{3,30}}?)? (?:{_BE} )?{_HOW}{_NORMAL}",
            rf"normal (?:appearance of (?:the )?|size of (?:the )?)?{_MIDDLE}",
            rf"(?:heart|cardiac)(?: \w+)?,? (?:and|or|,) (?:the )?(?:\w+ ){{0,3}}?mediastin\w+(?: \w+)? "
            rf"(?:{_BE} )?"
            rf"{_HOW}{_NORMAL}",
            r"normal (?:heart|cardiac)(?: \w+)? and mediastin\w+",
        ),
    ),
    "cardiomegaly": Rule(
        says=(
            r"(?:cardio|cadio|cardi)megaly",
            r"megalocardia",
            rf"{_ORGAN} (?:{_BE} )?{_HOW}(?:{_LARGE}|widened)",
            r"(?:enlarge(?:d|ment)|prominen(?:t|ce)|globular)(?: of)?(?: the)?(?: appearing)? "
            r"(?:heart|cardiac|cardiopericardial|cardio ?-?mediastinal)(?: (?:size|silhouette|shadow|"
            r"contour))*",
            r"(?:heart|cardiac) enlargement",
            r"increase(?:d)? (?:in )?(?:the )?(?:heart|cardiac) (?:size|silhouette|shadow)",
            r"(?:left|right|bi)? ?(?:ventricular|atrial) (?:enlargement|prominence)",
            r"enlarged (?:left |right )?(?:ventricle|atrium)",
            r"(?:increased|elevated|enlarged) cardio ?-?thoracic (?:ratio|index)",
            r"cardio ?-?thoracic (?:ratio|index) (?:is |appears )?(?:increased|elevated|enlarged|"
            r"(?:greater|more) than)",
            rf"{_ORGAN} (?:{_BE} )?{_HOW}(?:is )?(?:above|beyond|exceeds?|exceeding|greater than|larger "
            rf"than|bigger than) (?:the )?"
            r"(?:upper )?(?:normal|half|expected)",
            r"(?:diameter|width|size) of the heart (?:is |appears )?(?:exceeds?|above|more than|greater "
            r"than|increased|"
            r"enlarged) ?(?:half)?",
        ),
        denies=(
            rf"{_ORGAN}(?:,?(?: (?!(?:above|beyond|exceed\w*|greater|larger|enlarged)\b)[\w,]+){{1,7}}?)? "
            rf"(?:{_BE} )?{_HOW}"
            rf"{_NORMAL}",
            rf"normal (?:sized? )?(?:of the )?(?:appearance of (?:the )?)?{_ORGAN}",
            r"normal[- ]sized? heart",
            r"normal heart",
            rf"{_ORGAN} (?:{_BE} )?(?:near )?(?:at )?(?:the )?(?:near )?(?:top[- ]normal|upper limits?|"
            rf"high[- ]normal)",
            r"(?:top[- ]normal|high[- ]normal|upper limits?(?: of)? normal)(?: \w+){0,2} (?:heart|"
            r"cardiac)(?: (?:size|"
            r"silhouette|shadow))?",
            r"(?:heart|cardiac) size (?:is )?normal",
            r"normal cardio ?-?thoracic ratio",
            r"cardio ?-?thoracic (?:ratio|index) (?:is |appears )?(?:within )?normal",
        ),
        doubts=(
            rf"{_ORGAN} (?:{_BE} )?(?:of )?borderline(?: (?:enlarged|large|in size))?",
            r"borderline (?:size of the )?(?:heart|cardiac|cardiomediastinal)(?: (?:size|silhouette|shadow|"
            r"enlargement))*",
            r"borderline (?:enlarged|enlargement)",
            r"borderline cardiomegaly",
        ),
    ),
    "lung_lesion": Rule(
        says=(
            r"(?:lung |pulmonary |hilar |apical |non-?calcified |spiculated |solitary |parenchymal "
            r")*nodules?",
            r"(?:micro|macro)nodules?",
            r"nodular (?:\w+ )?(?:opacit\w+|densit\w+|opacification|shadows?|lesions?|focus|foci|"
            r"infiltrates?)",
            r"nodularit(?:y|ies)",
            r"(?:lung |pulmonary |hilar |suprahilar |perihilar |parenchymal |cavitary |lobe |lobar |lower |"
            r"upper |middle |"
            r"apical )*mass(?:es|like)?(?:[- ]like)?(?: (?:opacity|density|lesion))?",
            r"(?:lung|pulmonary|cavitary|parenchymal|spiculated|coin|metastatic|malignant|suspicious) "
            r"lesions?",
            r"cavit(?:y|ary|ies|ation)(?: lesions?)?",
            r"(?:rounded|round|ovoid|oval) (?:\w+ )?(?:opacit\w+|densit\w+|lesions?|focus)",
            r"tumou?rs?|neoplasms?|carcinoma|malignancy|metasta(?:sis|ses|tic)(?: disease)?",
        ),
        denies=_CLEAR,
    ),
    "lung_opacity": Rule(
        says=(
            r"opacit(?:y|ies)",
            r"opacification",
            r"infiltrat(?:es?|ions?|ive)",
            rf"{_AIR} (?:\w+ )?(?:diseases?|opacit\w+|process|densit\w+|consolidations?|infiltrates?|"
            rf"change|changes)",
            r"(?:interstitial|reticular|reticulonodular|bronchovascular|bibasilar|basilar|basal|perihilar|"
            r"patchy|hazy|"
            r"streaky|linear|lung|pulmonary|parenchymal|retrocardiac|vague|ill-defined|increased|focal|"
            r"lower lobe|"
            r"upper lobe|middle lobe|lingular?|left base|right base|base|apical|airspace) (?:\w+ "
            r")?densit(?:y|ies)",
            r"densit(?:y|ies) (?:is |are |seen |noted |projecting |overlying |present |identified )*"
            r"(?:in|within|at|over|overlying|projecting over|projected over|of) (?:the )?(?:\w+ ){0,3}?"
            r"(?:lobes?|lungs?|bases?|apex|apices|lingula|zone|hilum|hemithorax|thorax|midlung)",
            r"(?:interstitial|reticular|lung|parenchymal|pulmonary) (?:\w+ )?(?:markings?|prominence|"
            r"pattern|thickening|"
            r"changes?|disease|fibrosis|infiltrates?)",
            r"(?:prominent|increased|coarse[nd]*|accentuat\w+) (?:\w+ )?(?:interstiti\w+|reticular|"
            r"lung)(?: markings?)?",
            r"reticulation",
            r"(?:peri)?bronchial (?:wall )?(?:thickening|cuffing)",
            r"interstitial (?:lung )?disease",
            r"ground[- ]glass",
            r"(?:scar|scars|scarring|cicatri\w+|fibrosis|fibrotic changes?)",
            r"(?:haziness|hazy (?:area|shadow)\w*)",
        ),
        denies=_CLEAR,
    ),
    "edema": Rule(
        says=(
            r"(?:pulmonary |interstitial |alveolar |lung |cardiogenic )*(?:o?edema)",
            r"(?:congestive )?(?:heart|cardiac) failure",
            r"chf|volume overload|fluid overload|cephali[sz]ation|kerley(?: \w+)? lines?",
            r"(?:central |pulmonary |venous |vascular |mild |cardiac )*congest(?:ion|ive changes?|ed)",
            r"(?:pulmonary )?(?:vascular(?:ity|ature)?|vasculature|venous) (?:is |are |appears? )?"
            r"(?:\w+ly )?(?:engorge\w+|prominen\w+|congest\w+|indistinct\w*|redistribution|distention)",
            r"(?:prominent|engorged|indistinct|increased|distended) (?:central |pulmonary )+(?:vascul\w+|"
            r"vessels|veins)",
            r"(?:vascular|vasculature) indistinctness",
        ),
        denies=(
            r"(?:pulmonary )?(?:vasculature|vascularity|vessels|vascular markings?)(?: \w+)? (?:is |are |"
            r"appears? )?"
            r"(?:within )?(?:normal|unremarkable)",
            r"normal (?:pulmonary )(?:vasculature|vascularity|vascular markings?)",
            *_CLEAR,
        ),
    ),
    "consolidation": Rule(
        says=(r"consolidat(?:ions?|ive|ed)(?: (?:changes?|opacit\w+|process))?", r"air bronchograms?"),
        denies=_CLEAR,
    ),
    "pneumonia": Rule(
        says=(
            r"(?:broncho|lobar |aspiration |atypical |multilobar |multifocal )*pneumonia[es]?",
            r"pneumonitis|pneumonic(?: (?:infiltrates?|consolidations?|process))?",
            r"(?<!granulomatous )(?<!prior )(?<!old )(?<!previous )(?<!histoplasmosis )(?<!fungal "
            r")infect(?:ions?|ious)"
            r"(?: (?:process|infiltrates?|etiology|disease))?",
        ),
        denies=_CLEAR,
    ),
    "atelectasis": Rule(
        says=(
            r"atelec?ta(?:sis|ses|tic)(?: (?:changes?|opacit\w+|densit\w+|bands?))?",
            r"(?:lung|lobe|lobar|pulmonary|segmental|complete|partial) collapse",
            r"collapse of (?:the )?(?:\w+ ){0,3}(?:lung|lobe)",
            r"collapsed (?:\w+ ){0,2}(?:lung|lobe)",
        ),
        denies=_CLEAR,
    ),
    "pneumothorax": Rule(
        says=(
            r"(?:hydro|hemo|tension |apical |basilar )*pneumothora(?:x|ces)",
            r"collapsed lung with pleural air",
        ),
        denies=(r"pleural spaces? (?:are |is )?(?:clear|normal|unremarkable)",),
    ),
    "pleural_effusion": Rule(
        says=(
            r"(?<!pericardial )(?<!joint )(?:pleural |subpulmonic |parapneumonic |layering |loculated "
            r")*effusions?",
            r"(?:pleural|fissural|layering|subpulmonic) (?:\w+ )?fluid(?: collections?)?",
            r"fluid (?:in|within|tracking along|along|at) (?:the )?(?:\w+ ){0,3}"
            r"(?:pleural spaces?|fissures?|costophrenic \w+|hemithorax)",
            r"(?:hydro|hemo|haemo|pyo|chylo)thorax|hydropneumothorax|hemopneumothorax|empyema",
        ),
        denies=(
            r"(?:costophrenic|cp|costo-phrenic) (?:angles?|sulci|recess(?:es)?) (?:are |is |remain |appear )?"
            r"(?:bilaterally )?(?:clear|sharp|preserved|free|well[- ]defined)",
            r"(?:sharp|clear|preserved) (?:costophrenic|cp) (?:angles?|sulci)",
            r"pleural spaces? (?:are |is )?(?:clear|normal|unremarkable)",
        ),
    ),
    "pleural_other": Rule(
        says=(
            r"pleural (?:\w+ )?(?:thickening|scar(?:ring|s)?|fibrosis|plaques?|calcifications?|reaction|"
            r"disease|based|"
            r"changes?|tenting|nodules?|capping|abnormality)",
            r"(?:thicken(?:ed|ing)|scarring|calcification|plaques?|blunting|tenting)(?: of| along)? (?:the )?"
            r"(?:\w+ ){0,2}(?:pleura|fissures?)\b",
            r"(?:fissural|fissure|pleuro-?parenchymal|pleuroparenchymal|biapical|apical pleural|pleural[- "
            r"]parenchymal) "
            r"(?:\w+ )?(?:thickening|scarring|scar|capping|changes?|fibrosis)",
            r"apical (?:cap|caps|capping)",
            r"fibrothorax",
        ),
    ),
    "fracture": Rule(
        says=(
            r"fractur(?:es?|ed)",
            r"(?:compression|wedge) (?:fractures?|deformit(?:y|ies) from fractures?)",
            r"broken (?:rib|bone)s?",
        ),
        denies=(
            r"(?:bones?|osseous structures?|bony structures?|ribs?|bony thorax|skeletal structures?|"
            r"thoracic cage|"
            r"skeleton|osseous thorax)(?: of the \w+)? (?:are |is |appears? )?(?:grossly )?intact",
        ),
    ),
}

DEVICES: Mapping[str, tuple[str, ...]] = {
    "pacemaker": (
        r"pace ?-?makers?(?: (?:leads?|wires?|generator|device|battery))?",
        r"(?:cardiac )?pacer",
        r"(?:cardioverter |implantable |cardiac )*defibrillators?",
        r"(?:aicd|icd)\b",
        r"(?:pacing|pacer|cardiac|transvenous|biventricular|dual|atrial|ventricular) (?:leads?|wires?|pacer)",
        r"intracardiac (?:leads?|devices?)",
        r"(?:cardiac|loop|event) (?:loop )?(?:recorder|monitor(?:ing device)?)",
    ),
    "central_line": (
        r"(?:central|picc|jugular|subclavian|ij|port|dialysis|hemodialysis|venous|swan|mediport|arm|chest|"
        r"indwelling) "
        r"(?:\w+ ){0,2}?(?:lines?|catheters?|port)",
        r"picc",
        r"(?:media?|power|chest |infusion |mid)-?port(?:-?a-?cath)?|port-?a-?cath(?:eter)?|portacath|porta "
        r"cath",
        r"\bport\b",
        r"catheters?",
        r"swan[- ]ganz",
        r"infusaport",
        r"(?:central|venous) lines?",
        r"tips? (?:(?:is|are|remains?|again|now|seen|noted|located|terminat\w+|project\w*|overl\w+|in "
        r"place) )*(?:in|at|"
        r"within|over|overlying|near|to) (?:the )?(?:\w+ ){0,2}(?:svc|vena cava|cavo-?atrial|azygos|"
        r"brachiocephalic)",
    ),
    "endotracheal_tube": (
        r"(?:endo ?-?tracheal|et|ett) (?:tube|cannula)",
        r"\bett\b",
        r"endotracheal airway",
        r"intubat(?:ed|ion)",
    ),
    "tracheostomy": (r"trach(?:eostomy)?(?: (?:tube|cannula))?\b", r"tracheotomy tube"),
    "enteric_tube": (
        r"(?:naso|oro)gastric tubes?",
        r"(?:ng|og|enteric|feeding|dobb?hoff|gastric|gastrostomy|nasoenteric|peg) tubes?",
        r"dobb?hoff",
    ),
    "chest_tube": (
        r"chest (?:tubes?|drains?)",
        r"thoracostomy (?:tube|drain)",
        r"(?:pleural|pigtail) (?:drains?|catheters?|tubes?)",
        r"drain(?:age)? (?:tube|catheter)s?",
    ),
    "valve": (
        r"(?:prosthetic|artificial|mechanical|aortic|mitral|tricuspid|bioprosthetic|cardiac) (?:\w+ )?"
        r"valve(?: (?:replacement|prosthesis))?",
        r"valve (?:replacement|prosthesis)",
        r"valvular prosthesis",
        r"tavr",
    ),
    "vascular_device": (
        r"(?:coronary |aortic |vascular |biliary |endovascular )*stents?(?:[- ]grafts?)?|endografts?",
        r"(?:ivc |caval |vena cava )*filters?",
        r"(?:embolization |vascular )?coils?|(?:ventriculoperitoneal |vp |portosystemic )?shunt (?:tubing|"
        r"catheter)",
    ),
    "hardware": (
        r"(?:orthopedic |spinal |fixation |surgical |fusion |cervical |metallic )*hardware",
        r"(?:screws?|rods?|plates?|plating)(?: and (?:screws?|rods?|plates?))?(?! of)",
        r"(?:spinal|cervical|lumbar|thoracic|anterior|posterior) (?:\w+ )?(?:fusion|fixation)(?: (?:device|"
        r"hardware))?",
        r"(?:shoulder|hip|joint|humeral|total) (?:\w+ )?(?:arthroplasty|prosthesis|replacement|"
        r"hemiarthroplasty)",
        r"arthroplast(?:y|ies)|prosthetic (?:left |right )?(?:shoulder|hip|joint)s?",
        r"(?:spinal|vertebral|cervical|thoracic|lumbar|spine) (?:\w+ )?fusion|fusion of (?:the )?(?:\w+ "
        r"){0,4}"
        r"(?:spine|vertebra\w*)|internal fixation|bone anchors?",
        r"harrington rods?",
    ),
    "assist_device": (
        r"(?:ventricular assist|assist|lv assist) devices?",
        r"\blvad\b",
        r"(?:intra-?aortic )?balloon pump",
        r"\biabp\b",
        r"(?:spinal |nerve |vagal |vagus |dorsal column )*stimulators?(?: (?:leads?|device|wires?|"
        r"generator))?",
        r"spinal leads?|neurostimulator",
    ),
    "other_device": (
        r"(?:medical |support |implanted |implantable |monitoring |metallic |electronic |closure )*"
        r"(?:devices?|apparatus|equipment)",
        r"(?:left|right|cardiac|chest) (?:\w+ )?(?:generator|battery)",
        r"(?:monitor|ekg|ecg|electrode|telemetry) (?:\w+ )?(?:leads?|wires?|pads?)",
        r"leads?",
        r"(?:tubes?|lines?) and (?:tubes?|lines?)",
        r"(?:support|indwelling) (?:tubes?|lines?)",
        r"cannulas?",
        r"(?:breast )implants?",
        r"tubes?|tubing",
    ),
}
