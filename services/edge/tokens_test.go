package main

import (
	"net/http"
	"testing"
	"time"

	krakendjose "github.com/krakend/krakend-jose/v2"
)

func TestARememberedTokenEndsWhenItExpires(t *testing.T) {
	handle, _ := recorded()
	keys := newKeySet(settings{JWKSURL: newFakeSidecar(t, handle).URL + invokeKeys, JWKSMaxAge: time.Hour}, http.DefaultClient)
	keys.token = sidecarToken
	tokens := newVerifiedTokens(keys)
	demand := krakendjose.SignatureConfig{Alg: "RS256", Issuer: "yocaso", Audience: []string{"yocaso"}, Leeway: "0s"}
	validator, err := tokens.validator(&demand, nil)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := tokens.validator(&demand, nil); again != validator {
		t.Error("endpoints with one demand do not share what was verified")
	}
	brief := sign(t, 0, kid("k1"), claimsWith(map[string]any{"exp": time.Now().Add(2 * time.Second).Unix()}))
	for _, read := range []string{"keys", "a token", "a remembered token"} {
		if who, err := tokens.identify(brief, validator); err != nil || who.user != "user-1" {
			t.Fatalf("with %s read: %q %v", read, who.user, err)
		}
	}
	if _, remembered := tokens.known.get(tokenUse{hashOf(brief), validator}); !remembered {
		t.Fatal("the token is not remembered")
	}
	eventually(t, "the token to expire", func() bool {
		_, err := tokens.identify(brief, validator)
		return err != nil
	})
}

func TestAnotherAudienceIsAskedForWhateverIsRemembered(t *testing.T) {
	handle, _ := recorded()
	keys := newKeySet(settings{JWKSURL: newFakeSidecar(t, handle).URL + invokeKeys, JWKSMaxAge: time.Hour}, http.DefaultClient)
	keys.token = sidecarToken
	tokens := newVerifiedTokens(keys)
	token := goodToken(t)
	for audience, wants := range map[string]bool{"yocaso": true, "other": false} {
		demand := krakendjose.SignatureConfig{Alg: "RS256", Issuer: "yocaso", Audience: []string{audience}, Leeway: "0s"}
		validator, err := tokens.validator(&demand, nil)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := tokens.identify(token, validator); (err == nil) != wants {
				t.Errorf("audience %s: %v", audience, err)
			}
		}
	}
}
