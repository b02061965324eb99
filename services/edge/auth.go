package main

import (
	"errors"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/go-jose/go-jose/v3/jwt"
	auth0 "github.com/krakend/go-auth0/v2"
	krakendjose "github.com/krakend/krakend-jose/v2"
	"github.com/luraproject/lura/v2/config"
	"github.com/luraproject/lura/v2/proxy"
	luragin "github.com/luraproject/lura/v2/router/gin"
)

var (
	errNoToken   = errors.New("the call carries no bearer token")
	errBadClaims = errors.New("the token's claims are incomplete")

	subjectPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@|:-]{0,127}$`)
	claimPattern   = regexp.MustCompile(`^[\x20-\x7e]*$`)
)

const (
	userHeader    = "X-User-Id"
	maxClaimBytes = 4096
)

// authenticated lets a call through to an endpoint that has a validator only with a good token, and then with
// the identity that the token gives. It reads krakend-jose's configuration and uses its validator; the answer
// to a refusal and the source of keys are ours.
func (e *edge) authenticated(next luragin.HandlerFactory) luragin.HandlerFactory {
	return func(endpoint *config.EndpointConfig, prxy proxy.Proxy) gin.HandlerFunc {
		handler := next(endpoint, prxy)
		signature, err := krakendjose.GetSignatureConfig(endpoint)
		if errors.Is(err, krakendjose.ErrNoValidatorCfg) {
			return handler
		}
		validator, err := e.validator(signature, err)
		if err != nil {
			e.configFaults = append(e.configFaults, err)
			return nil
		}
		return func(c *gin.Context) {
			if err := e.identify(c.Request, validator, signature.PropagateClaimsToHeader); err != nil {
				e.refuse(c, err)
				return
			}
			callOf(c.Request.Context()).user = c.Request.Header.Get(userHeader)
			handler(c)
		}
	}
}

func (e *edge) validator(signature *krakendjose.SignatureConfig, err error) (*auth0.JWTValidator, error) {
	if err != nil {
		return nil, err
	}
	algorithm, known := krakendjose.SupportedAlgorithm(signature.Alg)
	if !known || signature.Alg != "RS256" {
		return nil, errors.New("auth/validator.alg: want RS256")
	}
	leeway, err := time.ParseDuration(signature.Leeway)
	if err != nil {
		return nil, err
	}
	expected := auth0.NewConfiguration(e.keys, signature.Audience, signature.Issuer, algorithm)
	return auth0.NewValidatorWithLeeway(expected, nil, leeway), nil
}

// identify verifies the token of a request and sets the identity headers that it proves.
func (e *edge) identify(r *http.Request, validator *auth0.JWTValidator, propagate [][]string) error {
	raw, err := bearer(r.Header)
	if err != nil {
		return err
	}
	token, err := jwt.ParseSigned(raw)
	if err != nil {
		return err
	}
	if _, err := validator.ValidateToken(token); err != nil {
		return err
	}
	claims := map[string]any{}
	if err := token.UnsafeClaimsWithoutVerification(&claims); err != nil {
		return err
	}
	return setIdentity(r.Header, claims, propagate)
}

func bearer(header http.Header) (string, error) {
	values := header.Values("Authorization")
	if len(values) != 1 {
		return "", errNoToken
	}
	scheme, token, found := strings.Cut(values[0], " ")
	if !found || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", errNoToken
	}
	return token, nil
}

func setIdentity(header http.Header, claims map[string]any, propagate [][]string) error {
	subject, _ := claims["sub"].(string)
	if _, expires := claims["exp"]; !expires || !subjectPattern.MatchString(subject) {
		return errBadClaims
	}
	for _, pair := range propagate {
		if _, isText := claims[pair[0]].(string); !isText && claims[pair[0]] != nil {
			return errBadClaims
		}
	}
	headers, err := krakendjose.CalculateHeadersToPropagate(propagate, claims)
	if err != nil {
		return err
	}
	for name, value := range headers {
		if len(value) > maxClaimBytes || !claimPattern.MatchString(value) {
			return errBadClaims
		}
		if value != "" { // krakend-jose gives an empty header for a claim that is missing
			header.Set(name, value)
		}
	}
	return nil
}

func (e *edge) refuse(c *gin.Context, err error) {
	answer := e.catalogue.fail(codeUnauthenticated, "The bearer token is missing or not valid.")
	if errors.Is(err, errNoKeys) {
		answer = e.catalogue.fail(codeUnavailable, "Tokens cannot be verified at the moment.")
	}
	e.abort(c, answer)
}
