// A direct producer in Go after WIRE.md alone: go run . <gateway> <api key> <prompt> [<CA file> [<topic>]]. It writes
// with franz-go's defaults, which place a keyed record as Java does, awaits the outcome at the gateway, and prints it;
// given a CA file, over TLS and as the key's own user.
package main

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

type wire struct {
	Generation   string `json:"generation"`
	Bootstrap    string `json:"bootstrap"`
	Topic        string `json:"topic"`
	User         string `json:"kafka_user"`
	Organisation string `json:"organisation"`
	Tenant       string `json:"tenant"`
	Prefix       string `json:"client_request_prefix"`
	PublicKey    []byte `json:"hpke_public"`
	Time         int64  `json:"time"`
}

type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

type body struct {
	Model     string `json:"model"`
	MaxTokens int    `json:"max_tokens"`
	Sealed    []byte `json:"sealed"`
}

func main() {
	gateway, apiKey, prompt := os.Args[1], os.Args[2], os.Args[3]
	door := client{gateway, apiKey}
	var where wire
	must(json.Unmarshal(door.get("/v1/wire"), &where))

	request := where.Prefix + rand.Text()
	contentKey := random(32)
	value := must1(json.Marshal(body{"echo", 16, seal(where, contentKey, request, prompt)}))
	record := &kgo.Record{
		Topic:   where.Topic,
		Key:     []byte(where.Organisation),
		Value:   value,
		Headers: sign(where, apiKey, request, wrap(where.PublicKey, contentKey), value),
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	options := []kgo.Opt{kgo.SeedBrokers(strings.Split(where.Bootstrap, ",")...)}
	if len(os.Args) > 4 {
		options = append(options, login(where, apiKey, os.Args[4])...)
	}
	if len(os.Args) > 5 {
		record.Topic = os.Args[5]
	}
	broker := must1(kgo.NewClient(options...))
	defer broker.Close()
	must(broker.ProduceSync(ctx, record).FirstErr())
	os.Stdout.Write(door.get("/v1/requests/" + request + "?wait_ms=20000"))
}

// login makes the key's own user known to brokers that an authority of the file vouches for.
func login(where wire, apiKey, authorities string) []kgo.Opt {
	believed := x509.NewCertPool()
	believed.AppendCertsFromPEM(must1(os.ReadFile(authorities)))
	mac := hmac.New(sha256.New, secretOf(apiKey))
	mac.Write([]byte("sluice-kafka-password-v1"))
	user := scram.Auth{User: where.User, Pass: hex.EncodeToString(mac.Sum(nil))}
	return []kgo.Opt{kgo.DialTLSConfig(&tls.Config{RootCAs: believed}), kgo.SASL(user.AsSha256Mechanism())}
}

// wrap gives the content key to the holder of the tenant's key: HPKE of RFC 9180, base mode, single shot.
func wrap(recipient, contentKey []byte) []byte {
	public := must1(hpke.DHKEM(ecdh.X25519()).NewPublicKey(recipient))
	return must1(hpke.Seal(public, hpke.HKDFSHA256(), hpke.AES256GCM(), []byte("sluice/content-key/v1"), contentKey))
}

func seal(where wire, contentKey []byte, request, prompt string) []byte {
	text := must1(json.Marshal([]message{{"user", prompt}}))
	salt, nonce := random(16), random(12)
	key := must1(hkdf.Key(sha256.New, contentKey, salt, "sluice/text/v1", 32))
	bound := strings.Join([]string{where.Generation, where.Tenant, "request", "messages", request}, "\x1f")
	gcm := must1(cipher.NewGCM(must1(aes.NewCipher(key))))
	return gcm.Seal(bytes.Join([][]byte{{1}, salt, nonce}, nil), nonce, text, []byte(bound))
}

func sign(where wire, apiKey, request string, wrapped, value []byte) []kgo.RecordHeader {
	dot := strings.LastIndex(apiKey, ".")
	headers := []kgo.RecordHeader{
		{Key: "sluice-key", Value: []byte(strings.TrimPrefix(apiKey[:dot], "sk-sluice-"))},
		{Key: "sluice-time", Value: []byte(strconv.FormatInt(where.Time, 10))},
		{Key: "sluice-session", Value: []byte(rand.Text())},
		{Key: "sluice-counter", Value: []byte("1")},
		{Key: "sluice-request", Value: []byte(request)},
		{Key: "sluice-kind", Value: []byte("inference")},
		{Key: "sluice-lane", Value: []byte("-1")},
		{Key: "sluice-wrap", Value: wrapped},
	}
	mac := hmac.New(sha256.New, secretOf(apiKey))
	mac.Write([]byte("sluice-request-v1"))
	for _, header := range headers {
		mac.Write(field(header.Value))
	}
	digest := sha256.Sum256(value)
	mac.Write(field(digest[:]))
	return append(headers, kgo.RecordHeader{Key: "sluice-signature", Value: mac.Sum(nil)})
}

func secretOf(apiKey string) []byte {
	return must1(base64.RawURLEncoding.DecodeString(apiKey[strings.LastIndex(apiKey, ".")+1:]))
}

func field(raw []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(raw))), raw...)
}

func random(length int) []byte {
	drawn := make([]byte, length)
	rand.Read(drawn)
	return drawn
}

type client struct{ gateway, apiKey string }

func (door client) get(path string) []byte {
	ask := must1(http.NewRequest(http.MethodGet, door.gateway+path, nil))
	ask.Header.Set("Authorization", "Bearer "+door.apiKey)
	answer := must1(http.DefaultClient.Do(ask))
	defer answer.Body.Close()
	told := must1(io.ReadAll(answer.Body))
	if answer.StatusCode != http.StatusOK {
		must(fmt.Errorf("%s: %s %s", path, answer.Status, told))
	}
	return told
}

func must(fault error) {
	if fault != nil {
		log.Fatal(fault)
	}
}

func must1[T any](found T, fault error) T {
	must(fault)
	return found
}
