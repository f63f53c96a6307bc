"""The sentences that reports are made of. Placeholders: size, grade, side, lung, zone, level, devices.

A sentence names no other finding than its own (or its parent, see `labels.PARENT`), unless it rules it out.
"""

from __future__ import annotations

TECHNIQUE = {
    "PA": (
        "PA view of the chest was obtained.",
        "Frontal upright PA radiograph of the chest.",
        "PA chest radiograph.",
        "Single upright frontal view.",
    ),
    "AP": (
        "AP portable view of the chest was obtained.",
        "Single AP portable chest radiograph.",
        "Portable frontal view of the chest.",
        "Semi-upright AP radiograph of the chest.",
    ),
}

POSITIVE: dict[str, tuple[str, ...]] = {
    "Lung Opacity": (
        "There is a {grade} hazy opacity in the {side} {zone}.",
        "{grade} patchy opacities are seen in the {side} {zone}.",
        "Ill-defined {side} {level} lung opacity, {grade}.",
        "{grade} airspace opacity projects over the {side} {zone}.",
        "Heterogeneous opacities are present in {lung}, {level} zone predominant, {grade} in extent.",
        "{grade} opacification of the {side} {zone} is noted.",
    ),
    "Support Devices": (
        "{devices} in place.",
        "Support devices include {devices}.",
        "The following lines and devices are seen: {devices}.",
        "{devices} in satisfactory position.",
        "There has been placement of {devices}.",
    ),
    "Pleural Effusion": (
        "There is a {size} {side} pleural effusion.",
        "{size} {side} effusion with blunting of the costophrenic angle.",
        "Blunting of the {side} costophrenic angle is consistent with a {size} pleural effusion.",
        "{size} {side} pleural fluid collection, layering as an effusion.",
        "Meniscus at the {side} base reflects a {size} effusion.",
    ),
    "Cardiomegaly": (
        "The cardiac silhouette shows {grade} enlargement.",
        "There is {grade} cardiomegaly.",
        "Heart is enlarged, to a {grade} degree.",
        "{grade} cardiomegaly is noted.",
        "The heart is enlarged with a {grade} increase in cardiothoracic ratio.",
    ),
    "Atelectasis": (
        "{grade} {side} basilar atelectasis.",
        "Linear bands at the {side} base represent {grade} atelectasis.",
        "{side} lower lobe atelectasis with {grade} volume loss.",
        "Plate-like atelectasis is seen at the {side} base, {grade}.",
        "{grade} subsegmental atelectatic change at the {side} base with elevation of the hemidiaphragm.",
    ),
    "Edema": (
        "There is {grade} pulmonary edema.",
        "{grade} interstitial edema with perihilar haze and septal lines.",
        "Pulmonary vascular engorgement in keeping with {grade} edema.",
        "Findings of {grade} pulmonary edema with indistinct vessels.",
    ),
    "Consolidation": (
        "There is {grade} consolidation in the {side} {zone}.",
        "Dense {side} {level} lobe consolidation with air bronchograms.",
        "Consolidative opacity in the {side} {zone}, {grade}, with air bronchograms.",
        "{side} {level} lung consolidation, which may represent pneumonia.",
    ),
    "Pneumothorax": (
        "There is a {size} {side} pneumothorax.",
        "{size} {side} apical pneumothorax with a visible pleural line.",
        "A visceral pleural line is seen on the {side}, consistent with a {size} pneumothorax.",
        "{side} pneumothorax, {size}.",
    ),
    "Nodule": (
        "A {size} nodule is seen in the {side} {zone}.",
        "Well-circumscribed {side} {level} lung nodule.",
        "There is a rounded nodular density in the {side} {zone}.",
        "{side} pulmonary nodule projecting over the {zone}.",
    ),
    "Mass": (
        "There is a large mass in the {side} {zone}.",
        "{side} {level} lung mass with spiculated margins.",
        "A lobulated mass projects over the {side} {zone}.",
        "Mass-like lesion in the {side} {level} lung.",
    ),
    "Scoliosis": (
        "There is {grade} scoliosis of the thoracic spine.",
        "{grade} thoracic scoliosis is present.",
        "{grade} scoliotic curvature of the spine.",
    ),
    "Rib Fracture": (
        "Displaced {side} lateral rib fractures are present.",
        "There are fractures of several {side} ribs.",
        "Multiple {side} rib fractures with step-off, {grade} displacement.",
    ),
    "Hernia": (
        "There is a {size} hiatal hernia with an air-fluid level.",
        "Retrocardiac air-fluid level represents a {size} hiatal hernia.",
        "{size} hiatal hernia behind the heart.",
    ),
    "Subcutaneous Emphysema": (
        "There is {grade} subcutaneous emphysema along the {side} chest wall.",
        "{grade} subcutaneous emphysema tracks along the {side} chest wall and into the neck.",
        "Streaky subcutaneous gas in the {side} chest wall, {grade}.",
    ),
    "Cavitary Lesion": (
        "There is a thick-walled cavitary lesion in the {side} {zone}.",
        "{side} {level} lung cavity with an air-fluid level.",
        "A {size} cavitary lesion is present in the {side} {level} lung.",
    ),
    "Pneumoperitoneum": (
        "There is free air under the right hemidiaphragm, consistent with pneumoperitoneum.",
        "{size} pneumoperitoneum beneath the right hemidiaphragm.",
        "Lucency below the right hemidiaphragm represents free intraperitoneal air.",
    ),
    "Dextrocardia": (
        "Dextrocardia with the cardiac apex pointing to the right.",
        "The heart lies in the right hemithorax, consistent with dextrocardia.",
        "There is dextrocardia with situs inversus.",
    ),
}

IMPRESSION: dict[str, tuple[str, ...]] = {
    "Lung Opacity": (
        "{side} {level} lung opacity",
        "{grade} opacity in the {side} {zone}, possibly infectious",
    ),
    "Support Devices": ("{devices} as above", "support devices as described: {devices}"),
    "Pleural Effusion": ("{size} {side} pleural effusion", "{side} effusion, {size}"),
    "Cardiomegaly": ("{grade} cardiomegaly", "enlarged heart"),
    "Atelectasis": ("{side} basilar atelectasis", "{grade} {side} atelectasis"),
    "Edema": ("{grade} pulmonary edema", "pulmonary edema, {grade}"),
    "Consolidation": (
        "{side} {level} lung consolidation",
        "consolidation in the {side} {zone}, possible pneumonia",
    ),
    "Pneumothorax": ("{size} {side} pneumothorax", "{side} pneumothorax"),
    "Nodule": ("{side} lung nodule; CT is suggested", "{side} {level} lung nodule"),
    "Mass": ("{side} lung mass; CT recommended", "mass in the {side} {level} lung"),
    "Scoliosis": ("{grade} scoliosis", "thoracic scoliosis"),
    "Rib Fracture": ("{side} rib fractures", "multiple {side} rib fractures"),
    "Hernia": ("{size} hiatal hernia", "hiatal hernia"),
    "Subcutaneous Emphysema": ("{grade} subcutaneous emphysema", "{side} subcutaneous emphysema"),
    "Cavitary Lesion": ("{side} cavitary lesion", "cavitary lesion in the {side} {zone}"),
    "Pneumoperitoneum": ("pneumoperitoneum; urgent surgical review advised", "free intraperitoneal air"),
    "Dextrocardia": ("dextrocardia", "dextrocardia, known congenital variant"),
}

NEGATIVE: dict[str, tuple[str, ...]] = {
    "Lung Opacity": (
        "No focal airspace opacity.",
        "No lung opacity is seen.",
        "The lungs are otherwise clear.",
    ),
    "Pleural Effusion": (
        "No pleural effusion.",
        "There is no effusion.",
        "No pleural effusion is identified.",
    ),
    "Cardiomegaly": ("Heart size is normal.", "The heart is not enlarged.", "No cardiomegaly."),
    "Edema": ("No pulmonary edema.", "There is no edema.", "No overt pulmonary edema."),
    "Consolidation": ("No focal consolidation.", "There is no consolidation.", "No lobar consolidation."),
    "Pneumothorax": ("No pneumothorax.", "There is no pneumothorax.", "No evidence of pneumothorax."),
    "Rib Fracture": ("No displaced rib fracture.", "No acute rib fracture is seen."),
}

NORMAL_OPENINGS = (
    "The study is normal.",
    "Normal chest radiograph.",
    "No acute abnormality is seen.",
    "Unremarkable examination.",
)

NORMAL_SENTENCES: dict[str, tuple[str, ...]] = {
    "lungs": (
        "The lungs are clear.",
        "Lungs are well expanded and clear.",
        "Both lungs are clear without focal consolidation.",
        "No focal consolidation or lung opacity.",
        "The lungs are well aerated and clear bilaterally.",
        "Clear lungs.",
        "There is no focal airspace opacity.",
        "The lung fields are clear.",
    ),
    "pleura": (
        "No pleural effusion or pneumothorax.",
        "There is no pleural effusion or pneumothorax.",
        "No effusion.",
        "The costophrenic angles are sharp and there is no pneumothorax.",
        "Pleural spaces are clear.",
        "No evidence of pneumothorax or effusion.",
    ),
    "heart": (
        "The heart size is normal.",
        "Cardiomediastinal silhouette is within normal limits.",
        "Cardiac and mediastinal contours are normal.",
        "Heart size and mediastinal contours are unremarkable.",
        "No cardiomegaly.",
        "The cardiac silhouette is normal in size.",
    ),
    "vessels": (
        "Pulmonary vasculature is normal.",
        "No pulmonary edema.",
        "Hilar contours are normal.",
        "There is no edema.",
    ),
    "bones": (
        "Osseous structures are intact.",
        "No acute osseous abnormality.",
        "The visualized bones are unremarkable.",
        "No displaced rib fracture.",
        "Bony thorax is intact.",
    ),
}

NORMAL_IMPRESSIONS = (
    "No acute cardiopulmonary process.",
    "No acute cardiopulmonary abnormality.",
    "Normal chest radiograph.",
    "No acute disease.",
    "Normal chest.",
    "No evidence of acute cardiopulmonary disease.",
    "Unremarkable chest radiograph.",
    "No active disease.",
    "Negative chest.",
)

CLOSINGS = (
    "The upper abdomen is unremarkable.",
    "Correlate clinically.",
    "Remaining structures are unchanged.",
    "Follow-up as clinically indicated.",
)
