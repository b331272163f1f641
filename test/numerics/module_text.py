"""Writes a module with one function in MLIR's generic form."""
import collections
import json

# The least a plan needs to know of the model around a function.
CONFIG = {"model_type": "megalodon", "num_layers": 1, "model_dim": 8, "z_dim": 4, "value_dim": 4, "num_heads": 1, "ffn_hidden_dim": 8,
          "cema_ndim": 2, "chunk_size": 8, "vocab_size": 4096, "norm_num_groups": 2}

Value = collections.namedtuple("Value", "name shape element")


def type_text(shape, element):
    if element == "index":
        return element
    return "tensor<" + "".join(f"{extent}x" for extent in shape) + element + ">"


def attribute_text(value):
    if isinstance(value, bool):
        return "unit" if value else None
    if isinstance(value, float):
        return f"{value:.17e} : f64"
    if isinstance(value, int):
        return f"{value} : i64"
    if isinstance(value, str):
        return value  # an attribute as IR spells it
    return "array<i32: " + ", ".join(map(str, value)) + ">"


class Function:
    """Collects the ops of `@test`. Inputs and outputs have names by which `megalodon-run invoke` sees them."""

    def __init__(self, precision):
        self.precision = precision
        self.inputs, self.lines, self.outputs = [], [], []

    def input(self, name, shape, element, role="input"):
        value = Value(f"%arg{len(self.inputs)}", tuple(shape), element)
        self.inputs.append((name, value, role))
        return value

    def output(self, name, value, role="output"):
        self.outputs.append((name, value, role))

    def index(self, number):
        """A constant of type index, such as the number of a rank."""
        value = Value(f"%c{len(self.lines)}", (), "index")
        self.lines.append(f"    {value.name} = arith.constant {number} : index")
        return value

    def op(self, name, operands, results, operand_groups=None, result_groups=None, **attributes):
        """Adds an op. Operands and results (shape, element) that are None are absent. *_groups are the segment sizes of ops that
        have several optional or variadic operands. Returns the values, None for absent ones; a lone value as itself."""
        present = [value for value in operands if value is not None]
        values = []
        for result in results:
            ssa = f"%v{len(self.lines)}_{len(values)}"
            values.append(None if result is None else Value(ssa, tuple(result[0]), result[1]))
        if operand_groups:
            attributes["operandSegmentSizes"] = operand_groups
        if result_groups:
            attributes["resultSegmentSizes"] = result_groups
        texts = [(key, attribute_text(value)) for key, value in attributes.items()]
        dictionary = ", ".join(key if text == "unit" else f"{key} = {text}" for key, text in texts if text is not None)
        given = [value for value in values if value is not None]
        self.lines.append(f'    {", ".join(value.name for value in given)} = "megalodon.{name}"'
                          f'({", ".join(value.name for value in present)}){" <{" + dictionary + "}>" if dictionary else ""} : '
                          f'({", ".join(type_text(*value[1:]) for value in present)}) -> '
                          f'({", ".join(type_text(*value[1:]) for value in given)})')
        return values[0] if len(values) == 1 else values

    def text(self):
        init = ", megalodon.init = #megalodon.init<zero, 0.0 : f64, 0.0 : f64>"
        arguments = [f'{value.name}: {type_text(*value[1:])} {{megalodon.name = "{name}", megalodon.role = #megalodon.role<{role}>'
                     f'{init if role == "parameter" else ""}}}' for name, value, role in self.inputs]
        results = [f'{type_text(*value[1:])} {{megalodon.name = "{name}", megalodon.role = #megalodon.role<{role}>}}'
                   for name, value, role in self.outputs]
        config = json.dumps(CONFIG).replace('"', '\\"')
        return "\n".join([
            f'module attributes {{megalodon.config = "{config}", megalodon.precision = "{self.precision}"}} {{',
            "  func.func @test(" + ",\n      ".join(arguments) + ") ->\n     (" + ",\n      ".join(results) + ")",
            '      attributes {megalodon.entry = "forward"} {', *self.lines,
            f'    return {", ".join(value.name for _, value, _ in self.outputs)} : '
            f'{", ".join(type_text(*value[1:]) for _, value, _ in self.outputs)}', "  }", "}", ""])
