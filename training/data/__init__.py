"""Labelled photos with boxes, as data sets with splits and as batches.

From Stanford Dogs or a folder; boxes from VOC, COCO or CSV files.
"""
