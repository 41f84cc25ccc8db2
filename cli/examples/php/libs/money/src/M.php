<?php

namespace Money;

final class M
{
    public static function text(int $amount): string
    {
        return "$amount EUR";
    }
}
