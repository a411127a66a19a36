// Workload is what hosts of the lab run beside the agent: an HTTP server that
// probes ask, and a collector of evidence. It shares no code with nixfleet, so
// that what it signs is what other programs sign.
//
//	workload serve DIR      HTTP on 127.0.0.1:8080, HTTPS on :8443, TCP on :9000
//	workload collect [...]  writes a document of evidence and its signature
package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

func main() {
	log.SetFlags(0)
	err := errors.New("usage: workload serve DIR | workload collect [flags]")
	switch args := os.Args[1:]; {
	case len(args) == 2 && args[0] == "serve":
		err = serve(args[1])
	case len(args) > 0 && args[0] == "collect":
		err = collect(args[1:])
	}
	if err != nil {
		log.Fatal(err)
	}
}

// serve answers as the file DIR/mode says, and leaves its certificate in
// DIR/cert.pem.
func serve(dir string) error {
	certificate, err := selfSigned(filepath.Join(dir, "cert.pem"))
	if err != nil {
		return err
	}
	answer := func(w http.ResponseWriter, r *http.Request) {
		mode, _ := os.ReadFile(filepath.Join(dir, "mode")) // none: all is well
		behave(strings.TrimSpace(string(mode)), w, r)
	}
	server := &http.Server{
		Handler: http.HandlerFunc(answer), ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0),
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}},
	}
	plain, err := net.Listen("tcp", "127.0.0.1:8080")
	if err != nil {
		return err
	}
	secure, err := net.Listen("tcp", "127.0.0.1:8443")
	if err != nil {
		return err
	}
	other, err := net.Listen("tcp", ":9000")
	if err != nil {
		return err
	}
	ended := make(chan error, 3) // one for each that serves; the first ends the program
	go func() { ended <- server.Serve(plain) }()
	go func() { ended <- server.ServeTLS(secure, "", "") }()
	go func() { ended <- accept(other) }()
	return <-ended
}

// behave is one answer, good or bad in one way.
func behave(mode string, w http.ResponseWriter, r *http.Request) {
	switch mode {
	case "", "ok":
		_, _ = io.WriteString(w, "all is well\n") // the reader may be gone
	case "status":
		http.Error(w, "the database is gone", http.StatusInternalServerError)
	case "body":
		_, _ = io.WriteString(w, "starting\n")
	case "large": // what is looked for is beyond what is read
		_, _ = io.WriteString(w, strings.Repeat("x", 64<<10)+"all is well\n")
	case "redirect":
		w.Header().Set("Location", "/login")
		w.WriteHeader(http.StatusFound)
	case "silent":
		<-r.Context().Done()
	case "cut":
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "all is well")
	default:
		log.Printf("there is no mode %q", mode)
		w.WriteHeader(http.StatusNotImplemented)
	}
}

// accept takes connections and closes them.
func accept(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		_ = conn.Close() // it was only taken
	}
}

// selfSigned makes a certificate of 127.0.0.1 that is its own authority.
func selfSigned(file string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: rand.Text()}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: crypto.PrivateKey(key)}, os.WriteFile(file, text, 0o644)
}

// collect writes evidence of three controls, signed with a key in OpenSSH's form.
func collect(args []string) error {
	flags := flag.NewFlagSet("collect", flag.ContinueOnError)
	out := flags.String("out", "/var/lib/nixfleet-compliance/evidence.json", "the document")
	key := flags.String("key", "/etc/ssh/ssh_host_ed25519_key", "what signs it")
	host := flags.String("host", "web-01", "whose it is")
	ago := flags.Duration("ago", 0, "how long ago it was collected")
	framework := flags.String("framework", "nis2", "of which the controls are")
	failing := flags.String("failing", "", "the control that fails")
	schema := flags.Int("schema", 1, "its version")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var controls []any
	for _, id := range []string{"access-control", "disk-encryption", "logging"} {
		control := map[string]any{"controlId": id, "passed": id != *failing, "frameworkArticles": map[string]any{*framework: []string{"21"}}}
		if id == *failing {
			control["reason"] = "it is not as it has to be"
		}
		controls = append(controls, control)
	}
	doc := map[string]any{
		"schemaVersion": *schema, "hostname": *host, "collectedAt": time.Now().Add(-*ago).UTC().Format(time.RFC3339), "controls": controls,
	}
	// Of ASCII, integers and sorted names, this is RFC 8785's form but for the
	// line's end.
	canonical, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	readable, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return err
	}
	signature, err := sign(*key, canonical)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(*out), 0o755); err != nil {
		return err
	}
	return errors.Join(replace(*out, readable), replace(*out+".sig", signature))
}

func sign(keyFile string, message []byte) ([]byte, error) {
	text, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, err
	}
	key, err := ssh.ParseRawPrivateKey(bytes.TrimSpace(text))
	if err != nil {
		return nil, err
	}
	private, ok := key.(*ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s is no ed25519 key", keyFile)
	}
	return ed25519.Sign(*private, message), nil
}

// replace writes a file beside its place and renames it.
func replace(file string, content []byte) error {
	if err := os.WriteFile(file+".new", content, 0o644); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}
