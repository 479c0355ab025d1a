//go:build ignore

// Command verify verifies an assertion and prints the openid: go run verify.go <token>,
// with JWKS, ISSUER and AUDIENCE set.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// verify returns the claims of a token that is for us and holds now. An app keeps the
// keys for 5 minutes, and gets them anew for a kid that it does not know.
func verify(token string, keys jose.JSONWebKeySet, issuer, audience string) (jwt.Claims, error) {
	var c jwt.Claims
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return c, err
	}
	if err := parsed.Claims(keys, &c); err != nil {
		return c, err
	}
	if c.Expiry == nil {
		return c, jwt.ErrExpired
	}
	return c, c.ValidateWithLeeway(jwt.Expected{
		Issuer: issuer, AnyAudience: jwt.Audience{audience}, Time: time.Now(),
	}, 30*time.Second)
}

func main() {
	log.SetFlags(0)
	resp, err := http.Get(os.Getenv("JWKS"))
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	var keys jose.JSONWebKeySet
	if err := json.NewDecoder(resp.Body).Decode(&keys); err != nil {
		log.Fatal(err)
	}
	c, err := verify(os.Args[1], keys, os.Getenv("ISSUER"), os.Getenv("AUDIENCE"))
	if err != nil {
		log.Fatal("refused: ", err)
	}
	fmt.Println(c.Subject)
}
