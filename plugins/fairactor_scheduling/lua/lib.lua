-- What the scripts share: where a schedule stands, and waking those who look after the due ones.

-- @include lib/base.lua

local MARGIN = 3000 -- ms after which others look after what a runtime that has died would have
local LINES = 10 -- of what is known of the last runs

local function key_of(schedule) return OWN .. 'schedule:' .. schedule end

-- Puts a schedule among the due ones. Whoever sleeps for longer than until then is woken.
local function put_due(schedule, at)
  call('ZADD', OWN .. 'due', integer(at), schedule)
  if call('ZRANGE', OWN .. 'due', 0, 0)[1] == schedule then
    local longest = math.max(at - shard.ms, 0) + MARGIN
    if call('PTTL', OWN .. 'leader') > longest then call('PEXPIRE', OWN .. 'leader', integer(longest)) end
    call('PUBLISH', EVENTS, 'p' .. SELF)
  end
end

-- A line on a run before the others, of which the last ones are kept.
local function add_line(lines, planned, outcome, task)
  lines = integer(planned) .. ' ' .. integer(shard.ms) .. ' ' .. outcome .. ' ' .. (task or '') .. '\n' .. (lines or '')
  local _, number = lines:gsub('\n', '')
  while number > LINES do
    lines = lines:match('^(.*\n)[^\n]*\n$')
    number = number - 1
  end
  return lines
end
