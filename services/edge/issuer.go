package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// errAuthAway says that nobody can tell at the moment whether a credential is good.
var errAuthAway = errors.New("the service auth cannot be asked")

// askTimeout bounds a question to auth; with the time that an answer is kept it stays under 5 s.
const askTimeout = 2500 * time.Millisecond

const maxAnswerBytes = 16 << 20

// issuer asks the methods of app auth that only the edge may call.
type issuer struct {
	url    string
	token  string
	client *http.Client
}

func newIssuer(s settings, client *http.Client) *issuer {
	return &issuer{s.SidecarURL + "/v1.0/invoke/auth/method/yocaso.auth.v1.", s.SidecarToken, client}
}

// ask calls a method such as TokenService/ListRevocations. Its errors never show the question, which may hold a key.
func (i *issuer) ask(method string, question, answer any) error {
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	body, err := json.Marshal(question)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, i.url+method, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	if i.token != "" {
		request.Header.Set("dapr-api-token", i.token)
	}
	response, err := i.client.Do(request)
	if err != nil {
		return fmt.Errorf("%w: %w", errAuthAway, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		io.Copy(io.Discard, io.LimitReader(response.Body, maxErrorBytes))
		return fmt.Errorf("%w: it answered %d", errAuthAway, response.StatusCode)
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, maxAnswerBytes)).Decode(answer); err != nil {
		return fmt.Errorf("%w: %w", errAuthAway, err)
	}
	return nil
}
