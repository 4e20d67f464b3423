"""Other programs accept our ONNX files: `python tests/check_onnx.py FILE...` (needs onnx).

`onnx.checker` must pass with full shape inference, input and output must have a free batch dimension, and nothing may lie
outside the file.
"""

import sys

import onnx


def main() -> int:
    for path in sys.argv[1:]:
        model = onnx.load(path, load_external_data=False)
        onnx.checker.check_model(model, full_check=True)
        (given,), (made,) = model.graph.input, model.graph.output
        for value, rank in ((given, 4), (made, 2)):
            dims = value.type.tensor_type.shape.dim
            assert len(dims) == rank and dims[0].dim_param == "batch", (path, value)
        assert not any(tensor.external_data for tensor in model.graph.initializer), path
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        known = {value.name for value in inferred.graph.value_info} | {made.name}
        unknown = [name for node in model.graph.node for name in node.output if name not in known]
        assert not unknown, (path, unknown)
    print(f"onnx {onnx.__version__} accepts {len(sys.argv) - 1} files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
