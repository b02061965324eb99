package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// region client

// Yocaso calls the conversation service through this app's sidecar.
type Yocaso struct {
	url     string
	headers map[string]string
}

// AsUser calls the edge with a user's access token or an API key.
func AsUser(credential string) Yocaso {
	return Yocaso{
		url:     sidecar() + "/v1.0/invoke/edge/method/api/v1/llm/conversation/",
		headers: map[string]string{"authorization": "Bearer " + credential},
	}
}

// OnBehalfOf calls the app llm for one of our users; Yocaso's operator has to trust our app-id.
func OnBehalfOf(user string) Yocaso {
	return Yocaso{
		url:     sidecar() + "/v1.0/invoke/llm/method/yocaso.llm.v1.ConversationService/",
		headers: map[string]string{"x-user-id": user, "x-scopes": "conversations:read conversations:write"},
	}
}

func sidecar() string {
	return "http://127.0.0.1:" + cmp.Or(os.Getenv("DAPR_HTTP_PORT"), "3500")
}

// endregion

// region call

// Refusal is an error that Yocaso or a sidecar answered.
type Refusal struct {
	Status     int    `json:"status"`
	Code       string `json:"code"`
	Message    string `json:"message"`
	IsTerminal bool   `json:"isTerminal"`
	Details    struct {
		RetryInfo struct{ RetryAfter string } `json:"retryInfo"` // such as 1.5s
	} `json:"details"`
}

func (r Refusal) Error() string { return r.Code + ": " + r.Message }

// Call calls a method and decodes its answer. The key makes the call safe to repeat.
func (y Yocaso) Call(method, key string, request, answer any) error {
	return retry(func() (bool, error) {
		response, err := y.post(method, key, "", request)
		if err != nil {
			return false, err
		}
		defer response.Body.Close()
		return false, json.NewDecoder(response.Body).Decode(answer)
	})
}

func (y Yocaso) post(method, key, after string, body any) (*http.Response, error) {
	content, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequest(http.MethodPost, y.url+method, bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	request.Header.Set("content-type", "application/json")
	request.Header.Set("accept", "text/event-stream, application/json")
	request.Header.Set("dapr-api-token", os.Getenv("DAPR_API_TOKEN"))
	request.Header.Set("idempotency-key", key)
	if after != "" {
		request.Header.Set("last-event-id", after)
	}
	for name, value := range y.headers {
		request.Header.Set(name, value)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	// A sidecar sends an empty 200 when the app goes away before it answers.
	kind, _, _ := strings.Cut(response.Header.Get("content-type"), ";")
	if response.StatusCode == http.StatusOK && (kind == "application/json" || kind == "text/event-stream") {
		return response, nil
	}
	defer response.Body.Close()
	return nil, refusalOf(response)
}

func refusalOf(response *http.Response) error {
	var body struct {
		Error              Refusal
		ErrorCode, Message string // a sidecar's error
	}
	json.NewDecoder(response.Body).Decode(&body)
	refusal := body.Error
	refusal.Status = response.StatusCode
	if refusal.Code == "" {
		refusal.Code, refusal.Message = cmp.Or(body.ErrorCode, "UNAVAILABLE"), body.Message
		refusal.IsTerminal = refusal.Status >= 400 && refusal.Status < 500
	}
	return refusal
}

// retry repeats an attempt after errors that may pass: ten times in a row without progress, with growing pauses.
func retry(attempt func() (progress bool, err error)) error {
	for failures := 1; ; failures++ {
		progress, err := attempt()
		var refusal Refusal
		if err == nil || failures > 10 || errors.As(err, &refusal) && refusal.IsTerminal {
			return err
		}
		if progress {
			failures = 1
		}
		asked, _ := time.ParseDuration(refusal.Details.RetryInfo.RetryAfter)
		time.Sleep(max(asked, time.Duration(failures)*200*time.Millisecond))
	}
}

// endregion

// region stream

// Event is one server-sent event.
type Event struct {
	ID   string `json:"id"`
	Type string `json:"type"`
	Data string `json:"data"`
}

func (e Event) isLast() bool {
	return e.Type == "run.completed" || e.Type == "run.failed" || e.Type == "run.cancelled"
}

// Stream begins a turn and shows each of its events once. After a lost connection it resumes behind the last event shown.
func (y Yocaso) Stream(method, key string, request any, show func(Event)) error {
	after := ""
	return retry(func() (progress bool, err error) {
		response, err := y.post(method, key, after, request)
		if err != nil {
			return false, err
		}
		defer response.Body.Close()
		for lines := bufio.NewReader(response.Body); ; {
			event, err := readEvent(lines)
			switch {
			case err != nil:
				return progress, err
			case event.Type == "reconnect":
				return true, io.ErrUnexpectedEOF
			case event.Type == "error":
				var body struct{ Error Refusal }
				json.Unmarshal([]byte(event.Data), &body)
				return progress, body.Error
			}
			show(event)
			after, progress = event.ID, true
			if event.isLast() {
				return true, nil
			}
		}
	})
}

// readEvent reads lines up to an empty one. A line that begins with a colon is a heartbeat.
func readEvent(lines *bufio.Reader) (Event, error) {
	var event Event
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return event, err
		}
		if line == "\n" && event.Type != "" {
			return event, nil
		}
		switch name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": "); name {
		case "id":
			event.ID = value
		case "event":
			event.Type = value
		case "data":
			event.Data = value
		}
	}
}

// endregion
