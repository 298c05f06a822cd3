"""The wire as other languages see it: our code gives the published vectors, and Node's crypto agrees with them."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from typing import Any

import jsonschema
import pytest
from aiokafka.partitioner import murmur2

from pipeline.events import wire
from pipeline.gateway.auth import parse_bearer
from pipeline.keys import encryption
from pipeline.producer import vectors as made

PUBLISHED: dict[str, Any] = json.loads(made.VECTORS.read_text(encoding="utf-8"))


def test_the_published_files_are_what_the_code_gives() -> None:
    assert made.VECTORS.read_text(encoding="utf-8") == made.render(made.vectors())
    assert made.SCHEMA.read_text(encoding="utf-8") == made.render(made.schema())


@pytest.mark.parametrize("signed", PUBLISHED["signed"], ids=["inference", "cancel"])
def test_published_records_are_genuine_and_fit_the_schema(signed: dict[str, Any]) -> None:
    headers = [(name, base64.b64decode(raw)) for name, raw in signed["headers"].items()]
    value = signed["value"].encode()
    envelope = wire.open_envelope(headers)
    assert envelope.genuine(bytes.fromhex(signed["secret"]), value)
    jsonschema.Draft202012Validator(json.loads(made.SCHEMA.read_text())).validate(json.loads(value))
    if envelope.kind == "inference":
        content_key = encryption.unwrap_content_key(made.PRIVATE, envelope.wrap)
        bound = encryption.associated_data("g1", "acme", "request", "messages", envelope.request)
        text = encryption.decrypt_text(content_key, bound, wire.decode_inference(value).sealed)
        assert wire.decode_messages(text) == made.MESSAGES
        assert text.decode() == PUBLISHED["sealed"]["text"]
    else:
        assert wire.decode_cancel(value).target == made.REQUEST


@pytest.mark.parametrize("wrong", [{}, {"target": ""}, {"target": "x", "y": 1}, {"model": "m", "max_tokens": 0}])
def test_the_schema_refuses_what_the_door_refuses(wrong: dict[str, Any]) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(made.SCHEMA.read_text()))
    assert list(validator.iter_errors(wrong))


def test_the_api_key_reads_as_published() -> None:
    found = PUBLISHED["api_key"]
    assert parse_bearer(found["text"]) == (found["key"], bytes.fromhex(found["secret"]))


@pytest.mark.parametrize("row", PUBLISHED["partitions"], ids=lambda r: f"{r['organisation'][:12]}/{r['count']}")
def test_placement_is_that_of_a_stock_client(row: dict[str, Any]) -> None:
    assert (murmur2(row["organisation"].encode()) & 0x7FFFFFFF) % row["count"] == row["partition"]


NODE = r"""
const c = require('crypto'), v = JSON.parse(require('fs').readFileSync(0)), hex = x => Buffer.from(x, 'hex');
const fail = what => { throw new Error(what) };
const same = (a, b, what) => { if (!Buffer.from(a).equals(Buffer.from(b))) fail(what) };
const cat = (...parts) => Buffer.concat(parts.map(p => Buffer.from(p)));
const field = x => { const n = Buffer.alloc(4); n.writeUInt32BE(x.length); return cat(n, x) };
const hmac = (key, data) => c.createHmac('sha256', key).update(data).digest();
const names = ['key', 'time', 'session', 'counter', 'request', 'kind', 'lane', 'wrap'];
for (const s of v.signed) {
  const header = name => Buffer.from(s.headers['sluice-' + name], 'base64');
  const body = c.createHash('sha256').update(Buffer.from(s.value)).digest();
  const message = cat('sluice-request-v1', ...names.map(header).map(field), field(body));
  same(hmac(hex(s.secret), message), header('signature'), 'signature');
}
const t = v.sealed, aad = [t.generation, t.tenant, 'request', 'messages', t.client_request].join('\x1f');
same(Buffer.from(aad), hex(t.associated_data), 'associated data');
const key = c.hkdfSync('sha256', hex(t.content_key), hex(t.salt), 'sluice/text/v1', 32);
const gcm = c.createCipheriv('aes-256-gcm', Buffer.from(key), hex(t.nonce)); gcm.setAAD(Buffer.from(aad));
const sealed = cat([1], hex(t.salt), hex(t.nonce), gcm.update(t.text, 'utf8'), gcm.final(), gcm.getAuthTag());
same(sealed, Buffer.from(t.sealed, 'base64'), 'sealed');
// RFC 9180: open the wrapped key
const w = v.wrapped, wrap = Buffer.from(w.wrap, 'base64'), enc = wrap.subarray(0, 32);
const x25519 = raw => c.createPublicKey({ key: cat(hex('302a300506032b656e032100'), raw), format: 'der',
  type: 'spki' });
const own = c.createPrivateKey({ key: cat(hex('302e020100300506032b656e04220420'), hex(w.private)), format: 'der',
  type: 'pkcs8' });
const dh = c.diffieHellman({ privateKey: own, publicKey: x25519(enc) });
const extract = (suite, salt, label, ikm) => hmac(salt, cat('HPKE-v1', suite, label, ikm));
const expand = (suite, prk, label, info, length) => {
  const size = Buffer.alloc(2); size.writeUInt16BE(length);
  return hmac(prk, cat(size, 'HPKE-v1', suite, label, info, [1])).subarray(0, length);
};
const kem = cat('KEM', [0, 0x20]), hpke = cat('HPKE', [0, 0x20, 0, 1, 0, 2]), none = Buffer.alloc(0);
const shared = expand(kem, extract(kem, none, 'eae_prk', dh), 'shared_secret', cat(enc, hex(w.public)), 32);
const context = cat([0], extract(hpke, none, 'psk_id_hash', none), extract(hpke, none, 'info_hash', w.info));
const secret = extract(hpke, shared, 'secret', none);
const open = c.createDecipheriv('aes-256-gcm', expand(hpke, secret, 'key', context, 32),
  expand(hpke, secret, 'base_nonce', context, 12));
open.setAuthTag(wrap.subarray(-16));
same(cat(open.update(wrap.subarray(32, -16)), open.final()), hex(w.content_key), 'content key');
const murmur2 = k => {
  const m = 0x5bd1e995; let h = 0x9747b28c ^ k.length, i = 0;
  for (; i + 4 <= k.length; i += 4) {
    let x = Math.imul(k.readInt32LE(i), m); x = Math.imul(x ^ (x >>> 24), m); h = Math.imul(h, m) ^ x;
  }
  const rest = k.length - i;
  if (rest) h = Math.imul(h ^ k.readUIntLE(i, rest), m);
  h = Math.imul(h ^ (h >>> 13), m);
  return h ^ (h >>> 15);
};
for (const p of v.partitions)
  if ((murmur2(Buffer.from(p.organisation)) & 0x7fffffff) % p.count !== p.partition) fail('partition');
console.log('agreed');
"""


def test_another_language_agrees() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed: the vectors are checked in Python alone")
    ran = subprocess.run([node, "-e", NODE], input=made.VECTORS.read_bytes(), capture_output=True, check=False)
    assert ran.stdout.strip() == b"agreed", ran.stderr.decode()[:2000]
