package identity

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"
)

// DefaultValidity and MinValidity are those of agents' certificates.
const (
	DefaultValidity = 30 * 24 * time.Hour
	MinValidity     = time.Minute
)

// AgentTemplate is the certificate of a host: common name and DNS name
// agent-<host>.<suffix>, or the bare machine id when suffix is empty; the role
// as URI; for client authentication. It begins at now and not before, because
// revocations are compared with the beginning.
func AgentTemplate(host, suffix string, now time.Time, validity time.Duration) (*x509.Certificate, error) {
	if err := CheckHostName(host); err != nil {
		return nil, err
	}
	cert, err := template(agentCommonName(host, suffix), now, validity)
	if err != nil {
		return nil, err
	}
	cert.DNSNames = []string{cert.Subject.CommonName}
	cert.URIs = []*url.URL{Role{Agent, host}.uri()}
	cert.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return cert, nil
}

func agentCommonName(host, suffix string) string {
	if suffix == "" {
		return host
	}
	return agentPrefix(host) + suffix
}

func agentPrefix(host string) string { return "agent-" + host + "." }

// OperatorTemplate is the certificate of a person or of CI.
func OperatorTemplate(name string, now time.Time, validity time.Duration) (*x509.Certificate, error) {
	if err := CheckOperatorName(name); err != nil {
		return nil, err
	}
	cert, err := template(name, now, validity)
	if err != nil {
		return nil, err
	}
	cert.URIs = []*url.URL{Role{Operator, name}.uri()}
	cert.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return cert, nil
}

// ServerTemplate is the certificate of a control plane that is reached under the
// given DNS names and IP addresses. It has no role. It begins a minute before
// now, for hosts whose clock is behind.
func ServerTemplate(names []string, now time.Time, validity time.Duration) (*x509.Certificate, error) {
	if len(names) == 0 {
		return nil, errors.New("server certificate: at least one name or address is needed")
	}
	cert, err := template(names[0], now, validity)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			cert.IPAddresses = append(cert.IPAddresses, ip)
		} else {
			cert.DNSNames = append(cert.DNSNames, name)
		}
	}
	cert.NotBefore = cert.NotBefore.Add(-clientSkew)
	cert.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	return cert, nil
}

// template is what all have in common. The serial number is left out: x509 takes
// a random one.
func template(commonName string, now time.Time, validity time.Duration) (*x509.Certificate, error) {
	if validity < MinValidity {
		return nil, fmt.Errorf("certificate for %s: valid for %s, at least %s is needed", commonName, validity, MinValidity)
	}
	now = now.UTC().Truncate(time.Second)
	return &x509.Certificate{
		Subject:               pkix.Name{CommonName: commonName},
		NotBefore:             now,
		NotAfter:              now.Add(validity),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
	}, nil
}
