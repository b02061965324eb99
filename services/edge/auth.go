package main

import (
	"errors"
	"net/http"
	"regexp"
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
	errBadClaims = errors.New("the token's claims are incomplete")

	subjectPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@|:-]{0,127}$`)
	claimPattern   = regexp.MustCompile(`^[\x20-\x7e]*$`)
)

const maxClaimBytes = 4096

// authenticated lets a call through to an endpoint that has a validator only with a good token, and then with
// the identity that the token gives. It reads krakend-jose's configuration and uses its validator; the answer
// to a refusal and the source of keys are ours.
func (e *edge) authenticated(next luragin.HandlerFactory) luragin.HandlerFactory {
	return func(endpoint *config.EndpointConfig, prxy proxy.Proxy) gin.HandlerFunc {
		handler := next(endpoint, prxy)
		signature, err := krakendjose.GetSignatureConfig(endpoint)
		if errors.Is(err, krakendjose.ErrNoValidatorCfg) {
			return e.unauthenticated(endpoint, handler)
		}
		validator, err := e.tokens.validator(signature, err)
		if err != nil {
			e.configFaults = append(e.configFaults, err)
			return nil
		}
		return func(c *gin.Context) {
			who, err := e.identify(c.Request, validator)
			if err == nil {
				err = setIdentity(c.Request.Header, who.claims, signature.PropagateClaimsToHeader)
			}
			if err != nil {
				e.refuse(c, err)
				return
			}
			callOf(c.Request.Context()).who = who
			if e.perCaller(c, who) {
				handler(c)
			}
		}
	}
}

// caller is who a credential proves to be. The claims become the identity headers.
type caller struct {
	claims  map[string]any
	user    string
	keyID   string
	session string
	isToken bool
	issued  int64     // of a token, by auth's clock
	ends    time.Time // of a token: when it expires
	asked   time.Time // of an API key: when auth was asked about it
	rate    *keyRate
}

// identify verifies the credential of a request.
func (e *edge) identify(r *http.Request, validator *auth0.JWTValidator) (caller, error) {
	given, err := credentialOf(r)
	if err != nil {
		return caller{}, err
	}
	if !given.isKey {
		return e.unlessRevoked(e.tokens.identify(given.secret, validator))
	}
	who, err := e.unlessRevoked(e.apiKeys.identify(r.Context(), given.secret))
	if errors.Is(err, errRevoked) { // the answer may be older than the revocation; auth knows whether the key still works
		who, err = e.unlessRevoked(e.apiKeys.identify(r.Context(), given.secret))
	}
	return who, err
}

func (e *edge) unlessRevoked(who caller, err error) (caller, error) {
	if err != nil {
		return caller{}, err
	}
	refused, err := e.revocations.refuses(who)
	if err == nil && refused {
		err = errRevoked
	}
	return who, err
}

func ofToken(raw string, validator *auth0.JWTValidator) (caller, error) {
	token, err := jwt.ParseSigned(raw)
	if err != nil {
		return caller{}, err
	}
	if _, err := validator.ValidateToken(token); err != nil {
		return caller{}, err
	}
	claims := map[string]any{}
	if err := token.UnsafeClaimsWithoutVerification(&claims); err != nil {
		return caller{}, err
	}
	who := caller{claims: claims, isToken: true}
	who.user, _ = claims["sub"].(string)
	who.keyID, _ = claims["key_id"].(string)
	who.session, _ = claims["sid"].(string)
	issued, _ := claims["iat"].(float64)
	who.issued = int64(issued)
	expiry, expires := claims["exp"].(float64)
	who.ends = time.Unix(int64(expiry), 0)
	_, oddKey := claims["key_id"]
	_, oddSession := claims["sid"]
	if !expires || oddKey && !keyIDPattern.MatchString(who.keyID) || oddSession && who.session == "" {
		return caller{}, errBadClaims
	}
	return who, nil
}

func setIdentity(header http.Header, claims map[string]any, propagate [][]string) error {
	if subject, _ := claims["sub"].(string); !subjectPattern.MatchString(subject) {
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

// badCredential is the one answer to whatever is wrong with a credential.
const badCredential = "The access token or API key is missing or not valid."

func (e *edge) refuse(c *gin.Context, err error) {
	switch {
	case errors.Is(err, errNoKeys), errors.Is(err, errAuthAway):
		e.abort(c, e.catalogue.fail(codeUnavailable, "Credentials cannot be verified at the moment."))
	case errors.Is(err, errKeyBudget):
		e.abort(c, e.catalogue.fail(codeBudgetExceeded, "The API key has spent its budget."))
	case errors.Is(err, errKeyLimited):
		e.abort(c, e.catalogue.fail(codeRateLimited, "The API key is past its rate limit."))
	default:
		e.abort(c, e.catalogue.fail(codeUnauthenticated, badCredential))
	}
}
