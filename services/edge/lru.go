package main

import "container/list"

// lru keeps the entries that were used last, up to a number of them. Its owner locks.
type lru[K comparable, V any] struct {
	size  int
	order *list.List
	items map[K]*list.Element
}

type lruEntry[K comparable, V any] struct {
	key   K
	value V
}

func newLRU[K comparable, V any](size int) *lru[K, V] {
	return &lru[K, V]{size: size, order: list.New(), items: map[K]*list.Element{}}
}

func (l *lru[K, V]) get(key K) (V, bool) {
	element, found := l.items[key]
	if !found {
		var none V
		return none, false
	}
	l.order.MoveToFront(element)
	return element.Value.(*lruEntry[K, V]).value, true
}

func (l *lru[K, V]) put(key K, value V) {
	if element, found := l.items[key]; found {
		element.Value.(*lruEntry[K, V]).value = value
		l.order.MoveToFront(element)
		return
	}
	l.items[key] = l.order.PushFront(&lruEntry[K, V]{key, value})
	for len(l.items) > l.size {
		l.dropOldest(func(V) bool { return true })
	}
}

// dropOldest removes the entry that was unused for longest, if it may go.
func (l *lru[K, V]) dropOldest(may func(V) bool) bool {
	element := l.order.Back()
	if element == nil || !may(element.Value.(*lruEntry[K, V]).value) {
		return false
	}
	delete(l.items, l.order.Remove(element).(*lruEntry[K, V]).key)
	return true
}
