"""Objects in scenes: composing, boxes, suppression, loss, average precision. Imports what is below, from rules on."""
