#!/bin/sh
# Removes from a virtual environment what serving never reads:
#
#     deploy/slim.sh /opt/venv
#
# - pip, and the tests that packages bring along;
# - of OpenVINO: plugins for other devices than the CPU, readers of other models than SavedModels
#   and its own, and files for C++;
# - of TensorFlow: files for C++.
set -eu

packages=$(echo "$1"/lib/python3*/site-packages)

cd "$packages"
rm -rf pip pip-*.dist-info ./*/tests ./*/*/tests
if cd "$packages/openvino" 2>/dev/null; then
    rm -rf include cmake libs/cache.json
    for name in intel_gpu_plugin intel_npu_plugin auto_plugin auto_batch_plugin hetero_plugin; do
        rm -f "libs/libopenvino_$name.so"
    done
    for name in onnx pytorch paddle gguf tensorflow_lite jax; do
        rm -f "libs/libopenvino_${name}_frontend".so.*
        rm -rf "frontend/$name"
    done
fi
if cd "$packages/tensorflow" 2>/dev/null; then
    rm -rf include
fi
rm -f "$1"/bin/pip*
