# Targets, of which a build without one takes `cpu`:
#   docker build --target cpu -t breedcam:cpu .             OpenVINO
#   docker build --target gpu -t breedcam:gpu .             TensorFlow and CUDA
#   docker build --target training -t breedcam:training .   TensorFlow; see docs/containers.md
# With traces (cpu): --build-arg REQUIREMENTS=otel
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS base
# The code is under the MIT licence. The models in the image are under terms of their own.
LABEL org.opencontainers.image.title="BreedCAM" \
      org.opencontainers.image.description="Dog breeds with visual explanations. The code is under the MIT licence; the models are derived from ImageNet photos: for non-commercial research and education." \
      org.opencontainers.image.licenses="MIT" \
      org.breedcam.model.terms="Derived from ImageNet photos: for non-commercial research and education."
# The last two are read by the NVIDIA container runtime, and by nothing without it.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    BREEDCAM_HOST=0.0.0.0 \
    BREEDCAM_PORT=8000 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin breedcam
WORKDIR /srv/breedcam

# OpenVINO reports each start to its maker where openvino-telemetry is there, and does without it.
FROM python:${PYTHON}-slim AS cpu-packages
ARG REQUIREMENTS=serve
COPY requirements/${REQUIREMENTS}.txt /tmp/requirements.txt
COPY deploy/slim.sh /tmp/slim.sh
RUN python -m venv /opt/venv \
 && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check \
      --require-hashes --only-binary :all: -r /tmp/requirements.txt \
 && /opt/venv/bin/pip uninstall --yes openvino-telemetry \
 && sh /tmp/slim.sh /opt/venv

FROM base AS cpu
COPY --from=cpu-packages /opt/venv /opt/venv
COPY models/dogs120 models/dogs120
COPY models/dogs120-lite models/dogs120-lite
COPY deploy/probe.py ./
COPY app app
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "probe.py"]
CMD ["python", "-m", "app.main"]

FROM python:${PYTHON}-slim AS gpu-packages
ARG REQUIREMENTS=gpu
COPY requirements/${REQUIREMENTS}.txt /tmp/requirements.txt
COPY deploy/slim.sh /tmp/slim.sh
RUN python -m venv /opt/venv \
 && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check \
      --require-hashes --only-binary :all: -r /tmp/requirements.txt \
 && /opt/venv/bin/pip uninstall --yes openvino-telemetry \
 && sh /tmp/slim.sh /opt/venv

# XLA compiles every graph for every batch size before it is ready: hence the long start.
FROM base AS gpu
COPY --from=gpu-packages /opt/venv /opt/venv
COPY models/dogs120 models/dogs120
COPY models/dogs120-lite models/dogs120-lite
COPY deploy/probe.py ./
COPY app app
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=300s --retries=3 CMD ["python", "probe.py"]
CMD ["python", "-m", "app.main"]

FROM python:${PYTHON}-slim AS training-packages
# "train gpu" trains on NVIDIA GPUs; "perturbation" has LIME and SHAP besides, "onnx" ONNX.
ARG REQUIREMENTS=train
COPY requirements /tmp/requirements
RUN python -m venv /opt/venv \
 && for set in ${REQUIREMENTS}; do \
      /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes \
        --only-binary :all: --no-binary promise --no-binary lime \
        -r "/tmp/requirements/${set}.txt" || exit 1; \
    done \
 && /opt/venv/bin/pip uninstall --yes openvino-telemetry

FROM base AS training
COPY --from=training-packages /opt/venv /opt/venv
COPY models/dogs120 models/dogs120
COPY models/dogs120-lite models/dogs120-lite
COPY app app
COPY training training
USER 10001:10001
ENTRYPOINT ["python", "-m", "training"]
CMD ["--help"]

# hadolint ignore=DL3006
FROM cpu
