-- Tasks that leave the delayed ones.

-- @include lib/base.lua

-- Removes delayed tasks of a tenant. Its next one counts in SCHEDULED as due at `earliest` in ms, if it is due before.
local function remove_delayed(name, ids, earliest)
  write_all('ZREM', DELAYED .. name, ids)
  local next_at = call('ZRANGE', DELAYED .. name, 0, 0, 'WITHSCORES')[2]
  if next_at then
    call('ZADD', SCHEDULED, 'XX', 'GT', integer(math.max(tonumber(next_at), earliest)), name)
  else
    call('ZREM', SCHEDULED, name)
  end
end
