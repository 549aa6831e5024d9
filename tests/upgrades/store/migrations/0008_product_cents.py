from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("store", "0007_country_continent")]
    operations = [
        migrations.AddField("product", "cents", models.IntegerField(default=0, db_default=0)),
    ]
