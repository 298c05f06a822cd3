// A direct producer in Node after WIRE.md alone, with nothing but what Node brings.
//   node producer.mjs <gateway> <api key> <prompt>                       prints the record that a client would be given
//   node producer.mjs <gateway> <api key> <prompt> <CA file> [<topic>]   writes it with KafkaJS over TLS, as the key's
//                                                                        own user, and prints the outcome's JSON

import crypto from 'node:crypto';
import fs from 'node:fs';

const [gateway, apiKey, prompt, caFile, topic] = process.argv.slice(2);
const cat = (...parts) => Buffer.concat(parts.map((part) => Buffer.from(part)));
const none = Buffer.alloc(0);
const sized = (bytes, length) => {
  const size = Buffer.alloc(bytes);
  size.writeUIntBE(length, 0, bytes);
  return size;
};
const field = (raw) => cat(sized(4, raw.length), raw);
const hmac = (key, message) => crypto.createHmac('sha256', key).update(message).digest();
const gcm = (key, nonce, aad, text) => {
  const cipher = crypto.createCipheriv('aes-256-gcm', key, nonce);
  cipher.setAAD(aad);
  return cat(cipher.update(text), cipher.final(), cipher.getAuthTag());
};

// HPKE of RFC 9180: base mode, single shot, X25519, HKDF-SHA256, AES-256-GCM
const kem = cat('KEM', [0, 0x20]);
const hpke = cat('HPKE', [0, 0x20, 0, 1, 0, 2]);
const extract = (suite, salt, label, input) => hmac(salt, cat('HPKE-v1', suite, label, input));
const expand = (suite, prk, label, info, length) =>
  hmac(prk, cat(sized(2, length), 'HPKE-v1', suite, label, info, [1])).subarray(0, length);
const wrapFor = (recipient, contentKey) => {
  const spki = Buffer.from('302a300506032b656e032100', 'hex');
  const own = crypto.generateKeyPairSync('x25519');
  const enc = own.publicKey.export({ format: 'der', type: 'spki' }).subarray(-32);
  const publicKey = crypto.createPublicKey({ key: cat(spki, recipient), format: 'der', type: 'spki' });
  const dh = crypto.diffieHellman({ privateKey: own.privateKey, publicKey });
  const shared = expand(kem, extract(kem, none, 'eae_prk', dh), 'shared_secret', cat(enc, recipient), 32);
  const info = extract(hpke, none, 'info_hash', 'sluice/content-key/v1');
  const context = cat([0], extract(hpke, none, 'psk_id_hash', none), info);
  const secret = extract(hpke, shared, 'secret', none);
  const [key, nonce] = [expand(hpke, secret, 'key', context, 32), expand(hpke, secret, 'base_nonce', context, 12)];
  return cat(enc, gcm(key, nonce, none, contentKey));
};

const murmur2 = (key) => {
  const m = 0x5bd1e995;
  let h = 0x9747b28c ^ key.length;
  let at = 0;
  for (; at + 4 <= key.length; at += 4) {
    let x = Math.imul(key.readInt32LE(at), m);
    x = Math.imul(x ^ (x >>> 24), m);
    h = Math.imul(h, m) ^ x;
  }
  if (key.length > at) h = Math.imul(h ^ key.readUIntLE(at, key.length - at), m);
  h = Math.imul(h ^ (h >>> 13), m);
  return h ^ (h >>> 15);
};

const ask = async (path) => (await fetch(gateway + path, { headers: { Authorization: `Bearer ${apiKey}` } })).json();
const wire = await ask('/v1/wire');
const dot = apiKey.lastIndexOf('.');
const secret = Buffer.from(apiKey.slice(dot + 1), 'base64url');
const request = wire.client_request_prefix + crypto.randomUUID();
const contentKey = crypto.randomBytes(32);
const [salt, nonce] = [crypto.randomBytes(16), crypto.randomBytes(12)];
const key = Buffer.from(crypto.hkdfSync('sha256', contentKey, salt, 'sluice/text/v1', 32));
const aad = Buffer.from([wire.generation, wire.tenant, 'request', 'messages', request].join('\x1f'));
const text = JSON.stringify([{ role: 'user', content: prompt }]);
const sealed = cat([1], salt, nonce, gcm(key, nonce, aad, text));
const value = Buffer.from(JSON.stringify({ model: 'echo', max_tokens: 16, sealed: sealed.toString('base64') }));
const headers = {
  'sluice-key': apiKey.slice('sk-sluice-'.length, dot),
  'sluice-time': String(wire.time),
  'sluice-session': crypto.randomUUID(),
  'sluice-counter': '1',
  'sluice-request': request,
  'sluice-kind': 'inference',
  'sluice-lane': '-1',
  'sluice-wrap': wrapFor(Buffer.from(wire.hpke_public, 'base64'), contentKey),
};
const fields = Object.values(headers).map((raw) => field(Buffer.from(raw)));
const digest = crypto.createHash('sha256').update(value).digest();
headers['sluice-signature'] = hmac(secret, cat('sluice-request-v1', ...fields, field(digest)));

if (caFile) {
  const { Kafka, logLevel } = (await import('kafkajs')).default;
  const password = hmac(secret, 'sluice-kafka-password-v1').toString('hex');
  const kafka = new Kafka({
    brokers: wire.bootstrap.split(','),
    ssl: { ca: fs.readFileSync(caFile) },
    sasl: { mechanism: wire.sasl_mechanism.toLowerCase(), username: wire.kafka_user, password },
    logLevel: logLevel.NOTHING,
  });
  const producer = kafka.producer();
  await producer.connect();
  await producer.send({ topic: topic ?? wire.topic, messages: [{ key: wire.organisation, value, headers }] });
  await producer.disconnect();
  console.log(JSON.stringify(await ask(`/v1/requests/${request}?wait_ms=20000`)));
} else {
  const base64 = (raw) => Buffer.from(raw).toString('base64');
  console.log(JSON.stringify({
    topic: wire.topic,
    partition: (murmur2(Buffer.from(wire.organisation)) & 0x7fffffff) % wire.partitions,
    key: base64(wire.organisation),
    value: base64(value),
    headers: Object.entries(headers).map(([name, raw]) => [name, base64(raw)]),
    client_request: request,
  }));
}
