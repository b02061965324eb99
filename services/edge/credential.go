package main

import (
	"errors"
	"hash/crc32"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

var errCredential = errors.New("the request does not carry exactly one well-formed credential")

var (
	keyPattern       = regexp.MustCompile(`^yk_(live|test)_[0-9A-Za-z]{44}$`)
	keyPrefixPattern = regexp.MustCompile(`^\s*yk_(live|test)_[0-9A-Za-z]{8}`)
	keyIDPattern     = regexp.MustCompile(`^key_[0-9a-z]{26,32}$`)
	credentialParams = map[string]bool{"accesstoken": true, "apikey": true, "xapikey": true, "authorization": true}
	stripSeparators  = strings.NewReplacer("-", "", "_", "")
)

// credential is an access token or an API key as the client sent it.
type credential struct {
	secret string
	isKey  bool
}

// extractCredential also refuses a credential in the query, since proxies on the way log URLs.
func extractCredential(r *http.Request) (credential, error) {
	tokens, keys := r.Header.Values("Authorization"), r.Header.Values("X-Api-Key")
	if len(tokens)+len(keys) != 1 || queryHasCredential(r.URL.RawQuery) {
		return credential{}, errCredential
	}
	if len(keys) == 1 {
		return credential{keys[0], true}, checkKeyFormat(keys[0])
	}
	scheme, token, found := strings.Cut(tokens[0], " ")
	if !found || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return credential{}, errCredential
	}
	if strings.HasPrefix(token, "yk_") {
		return credential{token, true}, checkKeyFormat(token)
	}
	return credential{token, false}, nil
}

func queryHasCredential(query string) bool {
	for parameter := range strings.FieldsFuncSeq(query, isQuerySeparator) {
		name, value, _ := strings.Cut(parameter, "=")
		if credentialParams[stripSeparators.Replace(strings.ToLower(unescaped(name)))] || keyPrefixPattern.MatchString(unescaped(value)) {
			return true
		}
	}
	return false
}

// isQuerySeparator includes the semicolon, behind which url.ParseQuery drops what the access logs of proxies show.
func isQuerySeparator(r rune) bool { return r == '&' || r == ';' }

// unescaped returns malformed text as it is.
func unescaped(text string) string {
	if decoded, err := url.QueryUnescape(text); err == nil {
		return decoded
	}
	return text
}

// checkKeyFormat refuses mistyped and random keys by their checksum, which saves a call to auth.
func checkKeyFormat(secret string) error {
	body := secret[:max(len(secret)-checksumLength, 0)]
	if !keyPattern.MatchString(secret) || keyChecksum(body) != secret[len(body):] {
		return errCredential
	}
	return nil
}

const (
	checksumLength = 6
	base62         = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// keyChecksum is CRC-32 in base 62; it must equal the checksum that app auth appends to a new key.
func keyChecksum(body string) string {
	var digits [checksumLength]byte
	value := crc32.ChecksumIEEE([]byte(body))
	for at := checksumLength - 1; at >= 0; at-- {
		digits[at] = base62[value%62]
		value /= 62
	}
	return string(digits[:])
}
