"""A model version's second graph, in 8-bit integers, which OpenVINO runs on CPUs with VNNI or AMX.

SavedModel --graph--> assets.extra/openvino/int8.xml, .bin --gate--> accepted or refused
"""
