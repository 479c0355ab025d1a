package redistest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// WithTLS makes the server speak nothing but TLS and demand a certificate of its clients. All certificates are made for this one server.
func WithTLS() Option {
	return func(s *Server) {
		s.tb.Helper()
		ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
		caDER, caKey := s.sign(ca, ca, nil)
		leaf := &x509.Certificate{
			SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		}
		leafDER, leafKey := s.sign(leaf, ca, caKey)
		keyDER, err := x509.MarshalPKCS8PrivateKey(leafKey)
		if err != nil {
			s.tb.Fatal(err)
		}
		s.lines = append(
			s.lines,
			"tls-ca-cert-file "+s.writePEM("ca.crt", "CERTIFICATE", caDER),
			"tls-cert-file "+s.writePEM("leaf.crt", "CERTIFICATE", leafDER),
			"tls-key-file "+s.writePEM("leaf.key", "PRIVATE KEY", keyDER),
			"tls-auth-clients yes", "tls-replication yes",
		)
		parsed, err := x509.ParseCertificate(caDER)
		if err != nil {
			s.tb.Fatal(err)
		}
		pool := x509.NewCertPool()
		pool.AddCert(parsed)
		s.TLS = &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{{Certificate: [][]byte{leafDER}, PrivateKey: leafKey}}, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12}
	}
}

// sign makes a key and a certificate for it, signed by the parent's key or, without one, by itself.
func (s *Server) sign(c, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) ([]byte, *ecdsa.PrivateKey) {
	s.tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.tb.Fatal(err)
	}
	if parentKey == nil {
		parentKey = key
	}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, parentKey)
	if err != nil {
		s.tb.Fatal(err)
	}
	return der, key
}

func (s *Server) writePEM(name, kind string, der []byte) string {
	s.tb.Helper()
	path := filepath.Join(s.Dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		s.tb.Fatal(err)
	}
	return path
}
