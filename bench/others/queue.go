// What Go's channels take for the shapes of queue_bench.ts and
// serializer_bench.ts. Prints a line for each: its name, a tab, nanoseconds.
//
//	go run queue.go               on all processors
//	GOMAXPROCS=1 go run queue.go  on one, as a JavaScript runtime has it

package main

import (
	"fmt"
	"os"
	"sort"
	"time"
)

const (
	operations = 100_000
	samples    = 21
)

func main() {
	print("spsc", func() { through(1024) })
	print("rendezvous", func() { through(0) })
	print("request", request)
}

// through sends numbers through a channel, from one goroutine to another.
func through(capacity int) {
	numbers := make(chan int, capacity)
	go func() {
		for i := 0; i < operations; i++ {
			numbers <- i
		}
		close(numbers)
	}()
	next := 0
	for number := range numbers {
		check(number, next)
		next++
	}
	check(next, operations)
}

type question struct {
	number int
	answer chan int
}

// request asks the one goroutine that counts, and waits for each answer.
func request() {
	questions := make(chan question)
	go func() {
		count := 0
		for question := range questions {
			question.answer <- count
			count++
		}
	}()
	answer := make(chan int)
	for i := 0; i < operations; i++ {
		questions <- question{i, answer}
		check(<-answer, i)
	}
	close(questions)
}

// print runs a round a few times, and prints the median.
func print(name string, round func()) {
	times := make([]float64, samples)
	round() // warm-up
	for i := range times {
		since := time.Now()
		round()
		times[i] = float64(time.Since(since).Nanoseconds()) / operations
	}
	sort.Float64s(times)
	fmt.Printf("%s\t%.1f\n", name, times[samples/2])
}

func check(got, expected int) {
	if got != expected {
		fmt.Fprintf(os.Stderr, "Wrong result: expected %d, got %d\n", expected, got)
		os.Exit(1)
	}
}
