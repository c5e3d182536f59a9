"""Train, export, calibrate and evaluate the models that the service serves."""

import os

# Both are read once, when Keras and TensorFlow are first imported. A user's own value wins.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
