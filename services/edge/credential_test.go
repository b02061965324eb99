package main

import (
	"net/http"
	"strings"
	"testing"
)

func TestTheKeyChecksumEqualsAuths(t *testing.T) {
	for body, want := range map[string]string{"yk_test_" + strings.Repeat("0", 38): "0nfHFs", "a": "4GEHKN"} {
		if got := keyChecksum(body); got != want {
			t.Errorf("%s: %s", body, got)
		}
	}
}

func TestARequestNeedsExactlyOneCredentialOutsideTheQuery(t *testing.T) {
	edge, sidecar, seen := startRecordingEdge(t, nil)
	key, other, token := newAPIKey(), newAPIKey(), validToken(t)
	sidecar.setVerification(key, validVerification())
	flipped := []byte(key)
	flipped[20] = base62[(strings.IndexByte(base62, flipped[20])+1)%62]
	bearer := func(secret string) []string { return []string{"Authorization", "Bearer " + secret} }
	header := func(secret string) []string { return []string{"X-Api-Key", secret} }
	for name, row := range map[string]struct {
		headers []string
		query   string
	}{
		"none":                       {nil, ""},
		"token and key":              {append(bearer(token), header(key)...), ""},
		"the same key twice":         {append(bearer(key), header(key)...), ""},
		"two headers":                {append(header(key), header(key)...), ""},
		"two spellings":              {[]string{"X-Api-Key", key, "x-api-key", other}, ""},
		"two bearers":                {append(bearer(key), bearer(key)...), ""},
		"key and basic":              {append(header(key), "Authorization", "Basic eDp5"), ""},
		"key and an empty bearer":    {append(header(key), "Authorization", ""), ""},
		"empty key and token":        {append(bearer(token), header("")...), ""},
		"a comma list":               {header(key + "," + key), ""},
		"a token as an API key":      {header(token), ""},
		"key in basic":               {[]string{"Authorization", "Basic " + key}, ""},
		"key without a scheme":       {[]string{"Authorization", key}, ""},
		"key in a cookie":            {[]string{"Cookie", "api_key=" + key}, ""},
		"a wrong checksum":           {bearer(string(flipped)), ""},
		"too short":                  {bearer(key[:len(key)-1]), ""},
		"too long":                   {bearer(key + "0"), ""},
		"another prefix":             {bearer("yk_prod_" + key[8:]), ""},
		"upper case":                 {header(strings.ToUpper(key)), ""},
		"only the prefix":            {bearer("yk_live_"), ""},
		"only a letter":              {bearer("yk_"), ""},
		"in the query":               {nil, "?api_key=" + key},
		"in the query by its header": {nil, "?x-api-key=" + key},
		"in the query as a token":    {nil, "?access_token=" + key},
		"in the query and a header":  {header(key), "?apiKey=" + key},
		"in the query, with a token": {bearer(token), "?api_key=x"},
		"in any query parameter":     {bearer(token), "?conversationId=" + key},
		"percent-encoded":            {bearer(token), "?conversationId=%79%6b_test_" + key[8:]},
	} {
		t.Run(name, func(t *testing.T) {
			for _, path := range []string{unaryPath, streamPath} {
				post(t, edge, path+row.query, "", row.headers...).wantError(t, 401, codeUnauthenticated)
			}
			do(t, request(t, http.MethodGet, edge.url+streamPath+row.query, "", nil, row.headers...)).wantError(t, 401, codeUnauthenticated)
		})
	}
	if len(seen) != 0 || sidecar.verifyCalls.Load() != 0 {
		t.Errorf("%d calls reached the sidecar, %d reached auth", len(seen), sidecar.verifyCalls.Load())
	}
}
