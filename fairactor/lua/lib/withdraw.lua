-- Suspects that leave their place unclaimed.

-- @include lib/ring.lua

local function count_suspects_withdrawn(name, n)
  local limits = tenants[name][LIMITS]
  if limits then limits.suspects = limits.suspects - n end
end

local function remove_suspects(name, ids)
  write_all('ZREM', SUSPECTS .. name, ids)
  if call('EXISTS', SUSPECTS .. name) == 0 then call('ZREM', SUSPECTED, name) end
end
