<?php

namespace Shop;

use Money\M;

final class Shop
{
    public static function run(): void
    {
        echo M::text(3), PHP_EOL;
    }
}
