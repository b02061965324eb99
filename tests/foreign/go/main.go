// Command ask asks Yocaso one question and prints the events of the answer as JSON lines: `ask edge|trusted TEXT`.
package main

import (
	"crypto/rand"
	"encoding/json"
	"os"
)

func main() {
	if err := ask(os.Args[1], os.Args[2], json.NewEncoder(os.Stdout).Encode); err != nil {
		json.NewEncoder(os.Stdout).Encode(map[string]any{"error": err, "text": err.Error()})
		os.Exit(1)
	}
}

func ask(way, text string, print func(any) error) error {
	// region ask
	yocaso, create, stream := AsUser(os.Getenv("YOCASO_TOKEN")), "create-conversation", "stream-message"
	if way == "trusted" {
		yocaso, create, stream = OnBehalfOf(os.Getenv("YOCASO_USER")), "CreateConversation", "StreamMessage"
	}
	var conversation struct{ ConversationID string }
	if err := yocaso.Call(create, rand.Text(), map[string]string{"title": "From Go"}, &conversation); err != nil {
		return err
	}
	print(map[string]string{"conversationId": conversation.ConversationID})
	question := map[string]string{"conversationId": conversation.ConversationID, "text": text}
	return yocaso.Stream(stream, rand.Text(), question, func(event Event) { print(event) })
	// endregion
}
