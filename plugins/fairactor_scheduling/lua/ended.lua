-- The next run of a schedule has waited for this one to end: it is due now.

-- @takes integer from lib/base.lua

local behind = id:sub(1, 9) == 'schedule:' and call('HGET', OWN .. 'behind', id)
if behind then
  later[#later + 1] = function()
    if call('ZADD', OWN .. 'due', 'XX', 'CH', integer(shard.wall_ms), behind) == 1 then
      if call('PTTL', OWN .. 'leader') > 3000 then call('PEXPIRE', OWN .. 'leader', 3000) end
      call('PUBLISH', EVENTS, 'p' .. SELF)
    end
    call('HDEL', OWN .. 'behind', id) -- last, so that a repeat does all of it again
  end
end
