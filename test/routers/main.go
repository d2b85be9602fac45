// Command routers asks one site, built with six routers, the same questions without
// isr and with it, and writes into README.md in which ways the answers differ.
//
//	go -C test/routers run .
package main

import (
	"fmt"
	"log"
	"os"
	"strings"
)

const readme, begin, end = "README.md", "<!-- differences -->\n", "<!-- end -->\n"

func main() {
	log.SetFlags(0)
	rep, err := compareAll()
	if err != nil {
		log.Fatal(err)
	}
	for _, u := range rep.unexplained {
		fmt.Println(u)
	}
	text, err := os.ReadFile(readme)
	if err != nil {
		log.Fatal(err)
	}
	before, rest, _ := strings.Cut(string(text), begin)
	_, after, ok := strings.Cut(rest, end)
	if !ok {
		log.Fatalf("%s has no place for the differences", readme)
	}
	if err := os.WriteFile(readme, []byte(before+begin+rep.table()+end+after), 0o644); err != nil {
		log.Fatal(err)
	}
	if n := len(rep.unexplained); n > 0 {
		log.Fatalf("%d differences have no reason", n)
	}
}
