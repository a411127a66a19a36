package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// CA issues certificates. Signer may be a key in memory or anything that signs
// digests elsewhere (TPM, HSM, KMS).
type CA struct {
	Cert   *x509.Certificate
	Signer crypto.Signer
}

// NewKey makes a key for a CA, a server or an operator: ECDSA P-256, which every
// browser and every key store can use. Hosts use their SSH key instead.
func NewKey() (*ecdsa.PrivateKey, error) {
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

// NewCA makes a self-signed authority that issues end certificates only.
func NewCA(name string, signer crypto.Signer, now time.Time, validity time.Duration) (CA, error) {
	now = now.UTC().Truncate(time.Second)
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now.Add(-clientSkew), // hosts may be behind by as much
		NotAfter:              now.Add(validity),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	cert, err := sign(template, template, signer.Public(), signer)
	if err != nil {
		return CA{}, fmt.Errorf("make CA %s: %w", name, err)
	}
	return CA{Cert: cert, Signer: signer}, nil
}

// LoadCA puts a certificate and the key that belongs to it together.
func LoadCA(certPEM []byte, signer crypto.Signer) (CA, error) {
	certs, err := ParseCertificates(certPEM)
	if err != nil {
		return CA{}, fmt.Errorf("CA certificate: %w", err)
	}
	cert := certs[0]
	if !cert.IsCA {
		return CA{}, fmt.Errorf("CA certificate: %s is not an authority's certificate", cert.Subject)
	}
	if !sameKey(cert.PublicKey, signer.Public()) {
		return CA{}, fmt.Errorf("CA certificate: the key does not belong to %s", cert.Subject)
	}
	return CA{Cert: cert, Signer: signer}, nil
}

// Issue signs a template of this package for a key, with a random serial. The
// certificate never outlives the authority.
func (ca CA) Issue(template *x509.Certificate, key crypto.PublicKey) (*x509.Certificate, error) {
	if !template.NotBefore.Before(ca.Cert.NotAfter) {
		return nil, fmt.Errorf("issue %s: the CA's own certificate has expired at %s", template.Subject.CommonName, stamp(ca.Cert.NotAfter))
	}
	limited := *template
	if limited.NotAfter.After(ca.Cert.NotAfter) {
		limited.NotAfter = ca.Cert.NotAfter
	}
	cert, err := sign(&limited, ca.Cert, key, ca.Signer)
	if err != nil {
		return nil, fmt.Errorf("issue %s: %w", template.Subject.CommonName, err)
	}
	return cert, nil
}

func sign(template, parent *x509.Certificate, key crypto.PublicKey, signer crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, signer)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// EncodeCertificate writes a certificate as PEM.
func EncodeCertificate(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: certBlock, Bytes: cert.Raw})
}

// ParseCertificates reads one or more PEM certificates; a block of another type is
// an error.
func ParseCertificates(data []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		if block.Type != certBlock {
			return nil, fmt.Errorf("the PEM block is a %s, a %s is needed", block.Type, certBlock)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
		data = rest
	}
	if len(certs) == 0 {
		return nil, errors.New("no PEM certificate in it")
	}
	return certs, nil
}

// EncodeKey writes a private key as PEM PKCS#8.
func EncodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// ParseKey reads a private key of a CA, a server or an operator: PKCS#8, or the
// older forms "EC PRIVATE KEY" and "RSA PRIVATE KEY".
func ParseKey(data []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("private key: no PEM block in it")
	}
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("private key: the PEM block is a %s, an unencrypted PRIVATE KEY is needed", block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("private key: a %T cannot sign", key)
	}
	return signer, nil
}

func sameKey(a, b crypto.PublicKey) bool {
	comparable, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && comparable.Equal(b)
}
