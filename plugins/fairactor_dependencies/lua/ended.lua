-- Notes a task that ends, if anything may wait for it.

if mine.used == nil then
  mine.used = shard.plugins and shard.plugins:find(',' .. SELF .. ',', 1, true)
    and call('EXISTS', HELD, OWN .. 'remote', OWN .. 'of:t', OWN .. 'late') > 0 or false
end
if mine.used or mine.sent then
  local ended = mine.ended or {}
  mine.ended = ended
  local n = #ended
  ended[n + 1], ended[n + 2], ended[n + 3], ended[n + 4] = id, state, record or false, ms
end
