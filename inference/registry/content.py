"""Files that a model may consist of: weights in safetensors, JSON, texts, tokenizer files. Nothing that can run.

Pickle, ``.bin``, ``.pt2`` and GGUF can carry code; ``auto_map`` and ``trust_remote_code`` fetch it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec

from inference.registry.memory import ImmutableBytes
from inference.registry.refusal import ModelRefused

MANIFEST_FILE, BUNDLE_FILE = "manifest.dsse.json", "model.sig"
SIDECARS = frozenset({MANIFEST_FILE, BUNDLE_FILE})
"""Signatures over the others, so listed by none."""
ALLOWED_SUFFIXES = (".safetensors", ".json", ".txt", ".md")
ALLOWED_NAMES = ("tokenizer.model", "chat_template.jinja")
ALLOWED_PREFIXES = ("LICENSE", "NOTICE")
MAX_HEADER_BYTES = 64 << 20
MAX_JSON_BYTES = 256 << 20
REMOTE_CODE = frozenset({"auto_map", "trust_remote_code", "custom_pipelines"})
_MAX_DEPTH = 64
_Size = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_BITS = {"BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8}
_BITS |= {"I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32}
_BITS |= {"F64": 64, "I64": 64, "U64": 64, "C64": 64}
"""Of one value, by the type's name in a safetensors header."""


def check_name(name: str) -> None:
    """Raise ModelRefused for a file that no model may hold."""
    known = name in ALLOWED_NAMES or name.endswith(ALLOWED_SUFFIXES)
    licence = name.startswith(ALLOWED_PREFIXES) and "." not in name
    if not (known or licence) or name in SIDECARS:
        raise ModelRefused(
            "forbidden_file",
            f"{name[:128]!r}: expected only {', '.join(ALLOWED_SUFFIXES)}, {', '.join(ALLOWED_NAMES)} and licences; "
            "convert weights to safetensors and remove the rest",
        )


def check_contents(files: Mapping[str, ImmutableBytes]) -> None:
    """Raise ModelRefused where a file is not of the kind its name says, asks for code, or a shard is missing."""
    if not any(name.endswith(".safetensors") for name in files):
        raise ModelRefused("missing_file", "expected weights in safetensors, got none")
    for name, content in files.items():
        if name.endswith(".safetensors"):
            _check_safetensors(name, content)
        elif name.endswith(("config.json", ".index.json")):
            document = _json(name, content)
            _refuse_remote_code(name, document)
            if name.endswith(".index.json"):
                _check_shards(name, document, files)
        elif name.endswith(".json"):
            _json(name, content)


def _json(name: str, content: ImmutableBytes) -> Any:
    if content.size > MAX_JSON_BYTES:
        raise ModelRefused("content", f"{name}: expected at most {MAX_JSON_BYTES} bytes of JSON, got {content.size}")
    try:
        return msgspec.json.decode(content.read())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ModelRefused("content", f"{name}: expected JSON, got other text; export the model again") from None


def _refuse_remote_code(name: str, document: Any) -> None:
    waiting: list[tuple[Any, int]] = [(document, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > _MAX_DEPTH:
            raise ModelRefused("content", f"{name}: expected JSON at most {_MAX_DEPTH} deep, got deeper")
        if isinstance(value, dict):
            entries = sorted(REMOTE_CODE & value.keys())
            if entries:
                raise ModelRefused(
                    "remote_code",
                    f"{name}: expected a model that needs no code of its own, got {entries[0]!r}; remove the entry and "
                    "serve the model with an architecture that is built in",
                )
            waiting.extend((child, depth + 1) for child in value.values())
        elif isinstance(value, list):
            waiting.extend((child, depth + 1) for child in value)


def _check_shards(name: str, index: Any, files: Mapping[str, ImmutableBytes]) -> None:
    shards = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shards, dict):
        raise ModelRefused(
            "content", f"{name}: expected an object with weight_map, got another document; export the model again"
        )
    missing = sorted({str(shard) for shard in shards.values()} - files.keys())
    if missing:
        raise ModelRefused(
            "missing_file", f"{name} names {_listed(missing)}, which is not in the model; fetch it again"
        )


class _Tensor(msgspec.Struct, frozen=True):
    """One tensor of a safetensors header; ``data_offsets`` count from the header's end."""

    dtype: str
    shape: Annotated[tuple[_Size, ...], msgspec.Meta(max_length=64)]
    data_offsets: tuple[_Size, _Size]

    @property
    def fits(self) -> bool:
        """True where the offsets are as far apart as type and shape say."""
        begin, end = self.data_offsets
        return self.dtype in _BITS and 8 * (end - begin) == math.prod(self.shape) * _BITS[self.dtype]


def _check_safetensors(name: str, content: ImmutableBytes) -> None:
    """Check a header: size, JSON object, each tensor as long as its shape says, no byte in none or in two of them.

    The format: github.com/huggingface/safetensors. A file that passes here is not refused by a worker that loads it.
    """
    size = int.from_bytes(content.read(8), "little")
    if content.size < 8 or not 2 <= size <= min(MAX_HEADER_BYTES, content.size - 8):
        raise ModelRefused("content", f"{name}: expected safetensors, got something else; export the weights again")
    try:
        header = msgspec.json.decode(content.read(8 + size)[8:], type=dict[str, msgspec.Raw])
        header.pop("__metadata__", None)
        tensors = [(key, msgspec.json.decode(entry, type=_Tensor)) for key, entry in header.items()]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ModelRefused(
            "content", f"{name}: expected a safetensors header, got other bytes; export the weights again"
        ) from None
    end = 0
    for key, tensor in sorted(tensors, key=lambda pair: pair[1].data_offsets):
        if not tensor.fits or tensor.data_offsets[0] != end:
            expected = f"expected {key[:128]!r} as long as its type and shape say, right after the tensor before"
            raise ModelRefused("content", f"{name}: {expected}; export the weights again")
        end = tensor.data_offsets[1]
    if end != content.size - 8 - size:
        raise ModelRefused("content", f"{name}: expected tensors to fill the file exactly; it is cut short or padded")


def compare_names(listed: Sequence[str], present: Sequence[str]) -> None:
    """Raise ModelRefused unless a folder holds exactly the listed files."""
    extra = sorted(set(present) - set(listed) - SIDECARS)
    if extra:
        raise ModelRefused(
            "extra_file", f"expected only signed files, got {_listed(extra)} too; remove it, or sign again"
        )
    missing = sorted(set(listed) - set(present))
    if missing:
        raise ModelRefused("missing_file", f"expected {_listed(missing)}, got nothing; fetch the model again")


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(name[:128] for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
