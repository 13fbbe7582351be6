-- What senders of the release before have put where it keeps the tenants that can be served.

-- @include lib/ring.lua
-- @include lib/queues.lua

local write_old_ring -- nil if there is nothing to write
if shard.old_senders and call('EXISTS', RING) == 1 then
  local MOST_ADOPTED = 200 -- tenants that a turn brings onto the rings of today
  local removals = {} -- key, member, ...

  local function adopt(key)
    for _, member in ipairs(call('ZRANGE', key, 0, MOST_ADOPTED - 1)) do
      local group = member:byte() == GROUP_BYTE and GROUP .. member:sub(2)
      if group then adopt(group) else arriving[#arriving + 1] = member end
      if not group or call('ZCARD', group) <= MOST_ADOPTED then
        removals[#removals + 1], removals[#removals + 2] = key, member
      end
      if #removals > 2 * MOST_ADOPTED then return end
    end
  end
  adopt(RING)
  load_tenants(arriving)

  function write_old_ring()
    for i = 1, #removals, 2 do call('ZREM', removals[i], removals[i + 1]) end
  end
end
