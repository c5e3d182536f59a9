"""BreedCAM's offline half: train, export, calibrate and evaluate what the service serves."""

import os

# Both are read once, when Keras and TensorFlow are first imported.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
