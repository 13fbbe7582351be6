-- Notes what has ended, where anything may wait for it.
if mine.used == nil then
  mine.used = shard.plugins and shard.plugins:find(',' .. SELF .. ',', 1, true)
    and call('EXISTS', OWN .. 'waits', OWN .. 'remote') > 0 or false
end
if mine.used or mine.sent then
  mine.ended = mine.ended or {}
  mine.ended[#mine.ended + 1] = { id, state, record }
end
