package redistest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// WithTLS makes the server accept only TLS, from clients with a certificate. Server
// and clients share one certificate that signs itself, made for this server.
func WithTLS() Option {
	return func(s *Server) {
		s.tb.Helper()
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		s.must(err)
		template := &x509.Certificate{
			SerialNumber:          big.NewInt(1),
			IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
			NotBefore:             time.Now().Add(-time.Hour),
			NotAfter:              time.Now().Add(24 * time.Hour),
			IsCA:                  true,
			BasicConstraintsValid: true,
			KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
			ExtKeyUsage: []x509.ExtKeyUsage{
				x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth,
			},
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		s.must(err)
		keyDER, err := x509.MarshalPKCS8PrivateKey(key)
		s.must(err)
		cert, err := x509.ParseCertificate(der)
		s.must(err)

		certFile := s.writePEM("tls.crt", "CERTIFICATE", der)
		s.lines = append(s.lines,
			"tls-ca-cert-file "+certFile,
			"tls-cert-file "+certFile,
			"tls-key-file "+s.writePEM("tls.key", "PRIVATE KEY", keyDER),
			"tls-auth-clients yes", "tls-replication yes",
		)
		s.TLS = &tls.Config{
			RootCAs:      x509.NewCertPool(),
			Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
			ServerName:   "127.0.0.1",
			MinVersion:   tls.VersionTLS12,
		}
		s.TLS.RootCAs.AddCert(cert)
	}
}

func (s *Server) writePEM(name, kind string, der []byte) string {
	s.tb.Helper()
	path := filepath.Join(s.Dir, name)
	s.must(os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	return path
}
