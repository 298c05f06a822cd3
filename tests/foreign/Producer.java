// A direct producer in Java after WIRE.md alone: JDK crypto, Kafka's own client and its default placement by key.
//   java -cp <jars of Kafka> Producer.java send <gateway> <api key> <prompt> [<CA file> [<topic>]]
//     prints the outcome's JSON; given a CA file, it writes over TLS and as the key's own user
//   java -cp <jars of Kafka> Producer.java place <count>                         keys on stdin, partitions on stdout

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.KeyFactory;
import java.security.KeyPair;
import java.security.KeyPairGenerator;
import java.security.MessageDigest;
import java.security.PublicKey;
import java.security.SecureRandom;
import java.security.spec.X509EncodedKeySpec;
import java.util.Arrays;
import java.util.Base64;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.UUID;
import javax.crypto.Cipher;
import javax.crypto.KeyAgreement;
import javax.crypto.Mac;
import javax.crypto.spec.GCMParameterSpec;
import javax.crypto.spec.SecretKeySpec;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public class Producer {
    static final ObjectMapper JSON = new ObjectMapper();
    static final SecureRandom RANDOM = new SecureRandom();
    static final byte[] NONE = new byte[0];
    static final byte[] KEM = cat("KEM", new byte[] {0, 0x20});
    static final byte[] HPKE = cat("HPKE", new byte[] {0, 0x20, 0, 1, 0, 2});
    static final String LOGIN =
        "org.apache.kafka.common.security.scram.ScramLoginModule required username=\"%s\" password=\"%s\";";
    static final byte[] X25519_SPKI = HexFormat.of().parseHex("302a300506032b656e032100");

    public static void main(String[] words) throws Exception {
        if (words[0].equals("place")) {
            place(Integer.parseInt(words[1]));
        } else {
            send(words[1], words[2], words[3], words.length > 4 ? words[4] : "", words.length > 5 ? words[5] : "");
        }
    }

    static void place(int count) throws Exception {
        BufferedReader keys = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        StringBuilder found = new StringBuilder();
        for (String key = keys.readLine(); key != null; key = keys.readLine()) {
            found.append(BuiltInPartitioner.partitionForKey(utf8(key), count)).append('\n');
        }
        System.out.print(found);
    }

    static void send(String gateway, String apiKey, String prompt, String ca, String other) throws Exception {
        JsonNode wire = get(gateway + "/v1/wire", apiKey);
        int dot = apiKey.lastIndexOf('.');
        String keyId = apiKey.substring("sk-sluice-".length(), dot);
        byte[] secret = Base64.getUrlDecoder().decode(apiKey.substring(dot + 1));
        String request = wire.get("client_request_prefix").asText() + UUID.randomUUID();
        byte[] contentKey = random(32);
        byte[] wrap = wrap(Base64.getDecoder().decode(wire.get("hpke_public").asText()), contentKey);

        String text = JSON.writeValueAsString(List.of(Map.of("role", "user", "content", prompt)));
        byte[] aad = utf8(String.join("\u001f",
            wire.get("generation").asText(), wire.get("tenant").asText(), "request", "messages", request));
        byte[] salt = random(16), nonce = random(12);
        byte[] key = hmac(hmac(salt, contentKey), cat("sluice/text/v1", new byte[] {1}));
        byte[] sealed = cat(new byte[] {1}, salt, nonce, gcm(key, nonce, aad, utf8(text)));
        byte[] value = JSON.writeValueAsBytes(Map.of("model", "echo", "max_tokens", 16, "sealed", sealed));

        String[] names = {"key", "time", "session", "counter", "request", "kind", "lane", "wrap"};
        byte[][] fields = {utf8(keyId), utf8(wire.get("time").asText()), utf8(UUID.randomUUID().toString()), utf8("1"),
            utf8(request), utf8("inference"), utf8("-1"), wrap};
        byte[] message = utf8("sluice-request-v1");
        byte[] organisation = utf8(wire.get("organisation").asText());
        var record = new ProducerRecord<>(other.isEmpty() ? wire.get("topic").asText() : other, organisation, value);
        for (int i = 0; i < names.length; i++) {
            record.headers().add("sluice-" + names[i], fields[i]);
            message = cat(message, field(fields[i]));
        }
        message = cat(message, field(MessageDigest.getInstance("SHA-256").digest(value)));
        record.headers().add("sluice-signature", hmac(secret, message));
        Properties settings = new Properties();
        settings.put("bootstrap.servers", wire.get("bootstrap").asText());
        if (!ca.isEmpty()) {
            settings.put("security.protocol", wire.get("security_protocol").asText());
            settings.put("ssl.truststore.type", "PEM");
            settings.put("ssl.truststore.location", ca);
            settings.put("sasl.mechanism", wire.get("sasl_mechanism").asText());
            settings.put("sasl.jaas.config", LOGIN.formatted(wire.get("kafka_user").asText(),
                HexFormat.of().formatHex(hmac(secret, utf8("sluice-kafka-password-v1")))));
        }
        produce(settings, record);
        System.out.println(get(gateway + "/v1/requests/" + request + "?wait_ms=20000", apiKey));
    }

    static void produce(Properties settings, ProducerRecord<byte[], byte[]> record) throws Exception {
        settings.put("acks", "all");
        settings.put("enable.idempotence", "true");
        settings.put("compression.type", "zstd");
        try (var producer = new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
            producer.send(record).get();
        }
    }

    /** HPKE of RFC 9180: base mode, single shot, X25519, HKDF-SHA256, AES-256-GCM. */
    static byte[] wrap(byte[] recipient, byte[] contentKey) throws Exception {
        KeyPair own = KeyPairGenerator.getInstance("X25519").generateKeyPair();
        byte[] spki = own.getPublic().getEncoded();
        byte[] enc = Arrays.copyOfRange(spki, spki.length - 32, spki.length);
        PublicKey theirs = KeyFactory.getInstance("X25519").generatePublic(
            new X509EncodedKeySpec(cat(X25519_SPKI, recipient)));
        KeyAgreement agreement = KeyAgreement.getInstance("X25519");
        agreement.init(own.getPrivate());
        agreement.doPhase(theirs, true);
        byte[] prk = extract(KEM, NONE, "eae_prk", agreement.generateSecret());
        byte[] shared = expand(KEM, prk, "shared_secret", cat(enc, recipient), 32);
        byte[] context = cat(new byte[] {0}, extract(HPKE, NONE, "psk_id_hash", NONE),
            extract(HPKE, NONE, "info_hash", utf8("sluice/content-key/v1")));
        byte[] secret = extract(HPKE, shared, "secret", NONE);
        byte[] key = expand(HPKE, secret, "key", context, 32);
        byte[] nonce = expand(HPKE, secret, "base_nonce", context, 12);
        return cat(enc, gcm(key, nonce, NONE, contentKey));
    }

    static byte[] extract(byte[] suite, byte[] salt, String label, byte[] input) throws Exception {
        // an empty HMAC key is the same as zeros, which Java's key type wants
        return hmac(salt.length == 0 ? new byte[32] : salt, cat("HPKE-v1", suite, label, input));
    }

    static byte[] expand(byte[] suite, byte[] prk, String label, byte[] info, int length) throws Exception {
        byte[] size = ByteBuffer.allocate(2).putShort((short) length).array();
        return Arrays.copyOf(hmac(prk, cat(size, "HPKE-v1", suite, label, info, new byte[] {1})), length);
    }

    static byte[] gcm(byte[] key, byte[] nonce, byte[] aad, byte[] text) throws Exception {
        Cipher cipher = Cipher.getInstance("AES/GCM/NoPadding");
        cipher.init(Cipher.ENCRYPT_MODE, new SecretKeySpec(key, "AES"), new GCMParameterSpec(128, nonce));
        cipher.updateAAD(aad);
        return cipher.doFinal(text);
    }

    static byte[] hmac(byte[] key, byte[] message) throws Exception {
        Mac mac = Mac.getInstance("HmacSHA256");
        mac.init(new SecretKeySpec(key, "HmacSHA256"));
        return mac.doFinal(message);
    }

    static byte[] field(byte[] value) {
        return ByteBuffer.allocate(4 + value.length).putInt(value.length).put(value).array();
    }

    static byte[] cat(Object... parts) {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        for (Object part : parts) {
            out.writeBytes(part instanceof String text ? utf8(text) : (byte[]) part);
        }
        return out.toByteArray();
    }

    static byte[] utf8(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static byte[] random(int length) {
        byte[] drawn = new byte[length];
        RANDOM.nextBytes(drawn);
        return drawn;
    }

    static JsonNode get(String url, String apiKey) throws Exception {
        HttpRequest ask = HttpRequest.newBuilder(URI.create(url)).header("Authorization", "Bearer " + apiKey).build();
        return JSON.readTree(HttpClient.newHttpClient().send(ask, HttpResponse.BodyHandlers.ofString()).body());
    }
}
