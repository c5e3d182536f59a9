"""A model version as one ONNX file, with its explanations, for ONNX Runtime and other engines.

SavedModel --freeze--> TensorFlow graph --translation--> ONNX graph --file--> .onnx
"""
