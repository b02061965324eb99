package main

import "container/list"

// lru is a least-recently-used cache of bounded size. It is not safe for concurrent use: the caller locks.
type lru[K comparable, V any] struct {
	size  int
	order *list.List // most recently used first
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
		l.evictOldest(func(V) bool { return true })
	}
}

// evictOldest removes the least recently used entry if the predicate holds for it.
func (l *lru[K, V]) evictOldest(isEvictable func(V) bool) {
	element := l.order.Back()
	if element != nil && isEvictable(element.Value.(*lruEntry[K, V]).value) {
		delete(l.items, l.order.Remove(element).(*lruEntry[K, V]).key)
	}
}
