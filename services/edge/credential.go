package main

import (
	"errors"
	"hash/crc32"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

var errCredential = errors.New("the call does not carry exactly one credential")

const keyHeader = "X-Api-Key"

var (
	keyPattern   = regexp.MustCompile(`^yk_(live|test)_[0-9A-Za-z]{44}$`)
	keyBeginning = regexp.MustCompile(`^\s*yk_(live|test)_[0-9A-Za-z]{8}`)
	keyIDPattern = regexp.MustCompile(`^key_[0-9a-z]{26,32}$`)
	queryNames   = map[string]bool{"accesstoken": true, "apikey": true, "xapikey": true, "authorization": true}
	plainNames   = strings.NewReplacer("-", "", "_", "")
)

// credential is what a call shows for itself: an access token or an API key.
type credential struct {
	secret string
	isKey  bool
}

// credentialOf finds the one credential of a call. A query is written down along the way, so one with a credential
// in it is refused, whatever else the call carries.
func credentialOf(r *http.Request) (credential, error) {
	tokens, keys := r.Header.Values("Authorization"), r.Header.Values(keyHeader)
	if len(tokens)+len(keys) != 1 || queryHasCredential(r.URL.RawQuery) {
		return credential{}, errCredential
	}
	if len(keys) == 1 {
		return credential{keys[0], true}, wellFormed(keys[0])
	}
	scheme, token, found := strings.Cut(tokens[0], " ")
	if !found || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return credential{}, errCredential
	}
	if strings.HasPrefix(token, "yk_") {
		return credential{token, true}, wellFormed(token)
	}
	return credential{token, false}, nil
}

func queryHasCredential(query string) bool {
	if query == "" {
		return false
	}
	values, _ := url.ParseQuery(query)
	for name, given := range values {
		if queryNames[plainNames.Replace(strings.ToLower(name))] {
			return true
		}
		for _, value := range given {
			if keyBeginning.MatchString(value) {
				return true
			}
		}
	}
	return false
}

// wellFormed sorts out, without asking anybody, what can be no key: the last characters are a checksum.
func wellFormed(secret string) error {
	body := secret[:max(len(secret)-checksumLength, 0)]
	if !keyPattern.MatchString(secret) || checksum(body) != secret[len(body):] {
		return errCredential
	}
	return nil
}

const (
	checksumLength = 6
	base62         = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// checksum is CRC-32 in base 62, as services/auth/domain/keys.py writes it.
func checksum(body string) string {
	var characters [checksumLength]byte
	value := crc32.ChecksumIEEE([]byte(body))
	for at := checksumLength - 1; at >= 0; at-- {
		characters[at] = base62[value%62]
		value /= 62
	}
	return string(characters[:])
}
