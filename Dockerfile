# CPU:  docker build -t breedcam:cpu .
# GPU:  docker build -t breedcam:gpu --build-arg REQUIREMENTS=gpu .
# With traces: --build-arg REQUIREMENTS=otel
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS packages
ARG REQUIREMENTS=serve
COPY requirements/${REQUIREMENTS}.txt /tmp/requirements.txt
# OpenVINO reports each start to its maker where openvino-telemetry is there, and does without it.
RUN python -m venv /opt/venv \
 && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check \
      --require-hashes --only-binary :all: -r /tmp/requirements.txt \
 && /opt/venv/bin/pip uninstall --yes openvino-telemetry

FROM python:${PYTHON}-slim
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
COPY --from=packages /opt/venv /opt/venv
WORKDIR /srv/breedcam
COPY models models
COPY app app
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['BREEDCAM_PORT']), timeout=4); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]
CMD ["python", "-m", "app.main"]
