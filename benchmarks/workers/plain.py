"""A service as it is usually written: FastAPI, with a Keras model in the handler."""

import argparse
import base64
import io
from typing import Any

import cv2
import keras
import numpy as np
import tensorflow as tf
import uvicorn
from fastapi import FastAPI, UploadFile
from PIL import Image

from benchmarks.peers import keras_resnet


def create_app(weights: str) -> FastAPI:
    """A service with `/predict`, `/gradcam` and `/readyz`."""
    app = FastAPI()
    model, size = keras_resnet.load(weights), keras_resnet.input_size(weights)
    grad_model = keras.Model(
        model.inputs, [model.get_layer(keras_resnet.LAST).output, model.output]
    )

    def read(file: UploadFile) -> tuple[Any, Any]:
        photo = Image.open(io.BytesIO(file.file.read())).convert("RGB")
        squashed = np.asarray(photo.resize((size, size), Image.Resampling.BILINEAR))
        return np.asarray(photo), keras_resnet.network_input(squashed)

    @app.post("/predict")
    def predict(file: UploadFile) -> dict[str, Any]:
        _, batch = read(file)
        probabilities = tf.nn.softmax(model.predict(batch, verbose=0))[0].numpy()
        return {"probabilities": probabilities.tolist()}

    @app.post("/gradcam")
    def gradcam(file: UploadFile, overlay: bool = True) -> dict[str, Any]:
        photo, batch = read(file)
        with tf.GradientTape() as tape:
            maps, logits = grad_model(batch)
            score = logits[0, tf.argmax(logits[0])]
        weights = tf.reduce_mean(tape.gradient(score, maps), axis=(0, 1, 2))
        heatmap = tf.nn.relu(tf.reduce_sum(maps[0] * weights, axis=-1)).numpy()
        heatmap = cv2.resize(heatmap / max(heatmap.max(), 1e-9), photo.shape[1::-1])
        answer: dict[str, Any] = {"probabilities": tf.nn.softmax(logits)[0].numpy().tolist()}
        if overlay:
            colours = cv2.applyColorMap((255 * heatmap).astype(np.uint8), cv2.COLORMAP_JET)
            blend = cv2.addWeighted(cv2.cvtColor(photo, cv2.COLOR_RGB2BGR), 0.6, colours, 0.4, 0)
            answer["overlay"] = base64.b64encode(cv2.imencode(".png", blend)[1].tobytes()).decode()
        return answer

    @app.get("/readyz")
    def readyz() -> dict[str, str]:
        return {"status": "ready"}

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--weights", required=True)
    options = parser.parse_args()
    uvicorn.run(create_app(options.weights), port=options.port, log_level="warning")
