package main

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"time"

	"github.com/gin-gonic/gin"
	auth0 "github.com/krakend/go-auth0/v2"
	krakendjose "github.com/krakend/krakend-jose/v2"
	"github.com/luraproject/lura/v2/config"
	"github.com/luraproject/lura/v2/proxy"
	luragin "github.com/luraproject/lura/v2/router/gin"
)

var (
	errInvalidClaims = errors.New("the token has missing or malformed claims")
	errRevoked       = errors.New("the credential is revoked")

	subjectPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@|:-]{0,127}$`)
	// Without outer spaces, which HTTP removes: the app would read another text than the claim.
	headerValuePattern = regexp.MustCompile(`^([\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?)?$`)
)

const maxClaimBytes = 4096

// invalidCredential is the same for every cause, so that an attacker learns nothing from it.
const invalidCredential = "The access token or API key is missing or invalid."

// principal is the authenticated caller of a request; its claims become the identity headers.
type principal struct {
	claims  map[string]any
	user    string
	keyID   string
	session string
	isToken bool

	issuedAt  int64     // token only: Unix seconds of auth's clock
	expiresAt time.Time // token only

	verifiedAt time.Time // API key only: when the request to auth was sent
	rateLimit  *keyRateLimit
}

// authenticate verifies credentials for endpoints with krakend-jose's validator configuration. It reuses that validator,
// but the JWKS cache and the error responses are the edge's own.
func (e *edge) authenticate(next luragin.HandlerFactory) luragin.HandlerFactory {
	return func(endpoint *config.EndpointConfig, prxy proxy.Proxy) gin.HandlerFunc {
		handler := next(endpoint, prxy)
		signature, err := krakendjose.GetSignatureConfig(endpoint)
		if errors.Is(err, krakendjose.ErrNoValidatorCfg) {
			return e.limitPublic(endpoint, handler)
		}
		validator, err := e.tokens.validator(signature, err)
		if err != nil {
			e.configErrors = append(e.configErrors, err)
			return nil
		}
		return func(c *gin.Context) {
			p, err := e.verifyCredential(c.Request, validator)
			if err == nil {
				err = setIdentityHeaders(c.Request.Header, p.claims, signature.PropagateClaimsToHeader)
			}
			if err != nil {
				e.abort(c, e.authenticationFailure(err))
				return
			}
			callFrom(c.Request.Context()).principal = p
			if e.limitPrincipal(c, p) {
				handler(c)
			}
		}
	}
}

func (e *edge) verifyCredential(r *http.Request, validator *auth0.JWTValidator) (principal, error) {
	given, err := extractCredential(r)
	if err != nil {
		return principal{}, err
	}
	if !given.isKey {
		p, err := e.tokens.verify(given.secret, validator)
		return e.rejectRevoked(r.Context(), p, err)
	}
	p, err := e.verifyKey(r.Context(), given.secret)
	if errors.Is(err, errRevoked) { // the cached verification predates the revocation; auth knows if the key still works
		p, err = e.verifyKey(r.Context(), given.secret)
	}
	return p, err
}

func (e *edge) verifyKey(ctx context.Context, secret string) (principal, error) {
	p, err := e.apiKeys.verify(ctx, secret)
	return e.rejectRevoked(ctx, p, err)
}

func (e *edge) rejectRevoked(ctx context.Context, p principal, err error) (principal, error) {
	if err != nil {
		return principal{}, err
	}
	revoked, err := e.revocations.isRevoked(ctx, p)
	if err == nil && revoked {
		err = errRevoked
	}
	return p, err
}

func setIdentityHeaders(header http.Header, claims map[string]any, propagate [][]string) error {
	if subject, _ := claims["sub"].(string); !subjectPattern.MatchString(subject) {
		return errInvalidClaims
	}
	for _, pair := range propagate {
		if _, isText := claims[pair[0]].(string); !isText && claims[pair[0]] != nil {
			return errInvalidClaims
		}
	}
	headers, err := krakendjose.CalculateHeadersToPropagate(propagate, claims)
	if err != nil {
		return err
	}
	for name, value := range headers {
		if len(value) > maxClaimBytes || !headerValuePattern.MatchString(value) {
			return errInvalidClaims
		}
		if value != "" { // krakend-jose returns an empty value for an absent claim
			header.Set(name, value)
		}
	}
	return nil
}

func (e *edge) authenticationFailure(err error) failure {
	switch {
	case errors.Is(err, errNoJWKS), errors.Is(err, errAuthUnavailable):
		return e.errors.failure(codeUnavailable, "Credentials cannot be verified at the moment.")
	case errors.Is(err, errKeyBudgetExceeded):
		return e.errors.failure(codeBudgetExceeded, "The API key has exhausted its budget.")
	case errors.Is(err, errKeyRateLimited):
		return e.errors.failure(codeRateLimited, "The API key has exceeded its rate limit.")
	default:
		return e.errors.failure(codeUnauthenticated, invalidCredential)
	}
}
